"""The configuration of RetinaNet's head. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.boxes.box_config import GridAnchorsConfig, MaxIoUAssignerConfig
from det_core.model.detection_config import TowerHeadConfig
from det_core.model.loss_config import L1Config
from det_core.settings import configclass, setting
from det_core.slots import AnchorConfig, AssignerConfig, LossConfig
from det_core.specs import FeatureSpec

if TYPE_CHECKING:
    from det_plugin_retinanet.head import RetinaNetHead

OCTAVE = tuple(4 * 2 ** (i / 3) for i in range(3))  # three scales, in strides


@configclass
class RetinaNetHeadConfig(TowerHeadConfig):
    """RetinaNet's head: classes and boxes at every location of every level (Lin et al., Focal Loss, 2017)."""

    type: ClassVar[str] = "retinanet"

    anchors: AnchorConfig = setting("reference boxes", default=GridAnchorsConfig(scales=OCTAVE))
    assigner: AssignerConfig = setting(
        "assigns anchors to objects; all other anchors below `negative` are background",
        default=MaxIoUAssignerConfig(positive=0.5, negative=0.4, low_quality=True, min_positive=0.0),
    )
    box_loss: LossConfig = setting("box regression, over positive anchors", default=L1Config())
    candidates: Literal["pair", "anchor"] = setting(
        "unit of `before_nms`: (anchor, class) pairs, or anchors with all their classes (mmdet 0.x and 1.x)",
        default="pair",
        conventions={"mmdet1": "anchor"},
    )

    normaliser: Literal["positives", "running_mean"] = setting(
        "what the losses are divided by: the number of positive anchors of the batch, or its running mean (0.9 of the "
        "last, from 50 an image; detectron2)",
        default="positives",
        conventions={"detectron2": "running_mean"},
    )
    clip: Literal["before", "after", "original"] = setting(
        "clip boxes before NMS, to the network's input or to the original image (original: Detectron); after: only "
        "detections, in the original image (`clip_original`)",
        default="before",
        conventions={"detectron2": "after", "detectron": "original"},
    )
    coarsest: Literal["threshold", "all"] = setting(
        "on the coarsest level apply the score threshold too, or keep all candidates (Detectron)",
        default="threshold",
        conventions={"detectron": "all"},
    )

    def __attrs_post_init__(self) -> None:
        if self.clip == "original" and self.nms_in != "original":
            raise ValueError(f"clip: original requires nms_in: original, found {self.nms_in!r}")

    def anchor_config(self) -> AnchorConfig:
        return self.anchors

    def check(self, features: FeatureSpec) -> None:
        features.same_channels(f"dense_head {self.type!r}")
        self.anchors.anchors_per_cell()
        self.anchors.anchors_per_level(len(features.strides))

    def build(self, features: FeatureSpec, num_classes: int) -> RetinaNetHead:
        from det_plugin_retinanet.head import RetinaNetHead

        return RetinaNetHead(self, features, num_classes)
