"""How the scored boxes of a head become detections: what all detecting heads have in common. Imports no torch."""

from __future__ import annotations

from typing import Literal

from det_core.settings import configclass, setting
from det_core.slots import DenseHeadConfig


@configclass
class SoftNMSConfig:
    """Soft-NMS (Bodla et al., 2017): overlapping detections lose score instead of going."""

    method: Literal["linear", "gaussian"] = setting(
        "linear: times 1 - IoU above the NMS threshold; gaussian: exp(-IoU^2 / sigma) always", default="linear"
    )
    sigma: float = setting("width of the Gaussian", default=0.5, above=0)
    min_score: float = setting("detections that decay below it go", default=0.05, least=0, most=1)


@configclass
class DetectionSettings:
    """Which scored boxes are kept, and how they suppress each other: a base of every head that detects objects.

    The command line's `--score-threshold` and `--max-detections`, and test-time augmentation, work with heads whose
    configuration has this base.
    """

    score_threshold: float = setting("detections scored above it are kept", default=0.05, least=0, most=1)
    nms_threshold: float = setting("IoU above which a detection is suppressed", default=0.5, least=0, most=1)
    soft_nms: SoftNMSConfig | None = setting("lower the scores of overlapping detections instead", default=None)
    class_agnostic_nms: bool = setting("detections of different classes suppress each other, too", default=False)
    max_detections: int = setting("maximum detections per image", default=100, least=1)
    nms_in: Literal["original", "network"] = setting(
        "pixels in which boxes are compared: of the original image, or of the network's input", default="original"
    )


@configclass
class DetectingHeadConfig(DenseHeadConfig, DetectionSettings):
    """A dense head whose candidates become detections."""

    before_nms: int = setting("best (anchor, class) pairs of each level that are kept", default=1000, least=1)
    min_size: float = setting(
        "discard boxes with a side of this many pixels of the network's input or less (-1: keep all)",
        default=0.0,
        least=-1,
    )
