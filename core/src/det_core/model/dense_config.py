"""What the configurations of heads that detect at every location have in common. Imports no torch."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen, validators

from det_core.config.base import DenseHeadConfig, doc
from det_core.model.layer_config import SoftNMSConfig

FRACTION = [validators.ge(0.0), validators.le(1.0)]


@frozen(kw_only=True)
class DetectingHeadConfig(DenseHeadConfig):
    """A dense head whose candidates become detections: which of them, and how they suppress each other."""

    before_nms: int = field(
        default=1000, validator=validators.ge(1), metadata=doc("best (anchor, class) pairs of each level that stay")
    )
    min_size: float = field(
        default=0.0,
        validator=validators.ge(-1.0),
        metadata=doc("a detection whose width or height, in the network's input, is not above this goes; -1 = none"),
    )
    score_threshold: float = field(default=0.05, validator=FRACTION, metadata=doc("detections above it are kept"))
    nms_threshold: float = field(default=0.5, validator=FRACTION, metadata=doc("IoU above which a detection goes"))
    soft_nms: SoftNMSConfig | None = field(default=None, metadata=doc("decay overlapping detections instead"))
    class_agnostic_nms: bool = field(
        default=False, metadata=doc("detections of different classes suppress each other, too")
    )
    max_detections: int = field(default=100, validator=validators.ge(1), metadata=doc("best per image"))
    nms_in: Literal["original", "network"] = field(
        default="original",
        validator=validators.in_(("original", "network")),
        metadata=doc("in whose pixels detections are compared: after or before boxes are scaled back"),
    )
