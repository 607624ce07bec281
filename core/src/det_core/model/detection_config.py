"""Settings that turn the scored boxes of a head into detections, shared by all detecting heads. Imports no torch."""

from __future__ import annotations

from typing import Literal

from det_core.boxes.box_config import DeltaCoderConfig
from det_core.conventions import of_detectron
from det_core.model.layer_config import Conv2dConfig
from det_core.model.loss_config import FocalConfig
from det_core.settings import configclass, setting
from det_core.slots import CoderConfig, ConvConfig, DenseHeadConfig, LossConfig, NormConfig


@configclass
class SoftNMSConfig:
    """Soft-NMS (Bodla et al., 2017): lower the scores of overlapping detections instead of removing them."""

    method: Literal["linear", "gaussian"] = setting(
        "factor on the score; linear: 1 - IoU above the NMS threshold; gaussian: exp(-IoU^2 / sigma) always",
        default="linear",
    )
    sigma: float = setting("width of the Gaussian", default=0.5, above=0)
    min_score: float = setting("discard detections whose score falls below this", default=0.05, least=0, most=1)


@configclass
class DetectionSettings:
    """Score threshold and NMS settings: a base of the configuration of every head that detects objects.

    The options `--score-threshold` and `--max-detections`, and test-time augmentation, require this base.
    """

    score_threshold: float = setting("keep detections with a score above this", default=0.05, least=0, most=1)
    nms_threshold: float = setting("IoU above which a detection is suppressed", default=0.5, least=0, most=1)
    soft_nms: SoftNMSConfig | None = setting("use soft-NMS instead of NMS", default=None)
    class_agnostic_nms: bool = setting("also suppress detections of different classes", default=False)
    max_detections: int = setting("maximum detections per image", default=100, least=1)
    nms_in: Literal["original", "network"] = setting(
        "compute IoUs in pixels of the original image, or of the network's input",
        default="original",
        conventions={"torchvision": "network", "detectron2": "network", "maskrcnn-benchmark": "network"},
    )
    clip_original: bool = setting(
        "clip detections to the original image once they are in its pixels, and drop those without area",
        default=False,
        conventions={"detectron2": True},
    )


@configclass
class DetectingHeadConfig(DenseHeadConfig, DetectionSettings):
    """A dense head whose candidates become detections."""

    before_nms: int | None = setting(
        "maximum (anchor, class) pairs per level before NMS (null: all above the score threshold)",
        default=1000,
        least=1,
    )
    min_size: float = setting(
        "discard boxes with a side of this many pixels of the network's input or less (-1: keep all)",
        default=0.0,
        least=-1,
        conventions={
            "mmdet1": -1.0,
            "torchvision": -1.0,
            "detectron2": -1.0,
            **of_detectron(-1.0),
        },
    )


@configclass
class TowerHeadConfig(DetectingHeadConfig):
    """Settings of a dense head with a tower of convolutions for classes and one for boxes, as in RetinaNet."""

    channels: int = setting("channels of both towers", default=256, least=1)
    num_convs: int = setting("3x3 convolutions per tower", default=4, least=0, most=64)
    coder: CoderConfig = setting("box regression targets", default=DeltaCoderConfig())
    cls_loss: LossConfig = setting("classification, over all anchors", default=FocalConfig())
    prior: float = setting(
        "initial score of every anchor and class, low because most anchors are background",
        default=0.01,
        above=0,
        below=1,
    )
    norm: NormConfig | None = setting(
        "after every convolution of the towers; all levels share it, so avoid norms with running statistics",
        default=None,
    )
    conv: ConvConfig = setting("the towers' convolutions", default=Conv2dConfig())
