"""What the configurations of heads that detect at every location have in common. Imports no torch."""

from __future__ import annotations

from typing import Literal

from det_core.model.layer_config import SoftNMSConfig
from det_core.settings import configclass, setting
from det_core.slots import DenseHeadConfig


@configclass
class DetectingHeadConfig(DenseHeadConfig):
    """A dense head whose candidates become detections: which of them, and how they suppress each other."""

    before_nms: int = setting("best (anchor, class) pairs of each level that stay", default=1000, least=1)
    min_size: float = setting(
        "a detection whose width or height, in the network's input, is not above this goes; -1 = none",
        default=0.0,
        least=-1,
    )
    score_threshold: float = setting("detections above it are kept", default=0.05, least=0, most=1)
    nms_threshold: float = setting("IoU above which a detection goes", default=0.5, least=0, most=1)
    soft_nms: SoftNMSConfig | None = setting("decay overlapping detections instead", default=None)
    class_agnostic_nms: bool = setting("detections of different classes suppress each other, too", default=False)
    max_detections: int = setting("best per image", default=100, least=1)
    nms_in: Literal["original", "network"] = setting(
        "in whose pixels detections are compared: after or before boxes are scaled back", default="original"
    )
