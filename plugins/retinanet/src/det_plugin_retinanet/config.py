"""The configuration of RetinaNet's head. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from det_core.boxes.box_config import DeltaCoderConfig, GridAnchorsConfig, MaxIoUAssignerConfig
from det_core.model.detection_config import DetectingHeadConfig
from det_core.model.layer_config import Conv2dConfig
from det_core.model.loss_config import FocalConfig, L1Config
from det_core.settings import configclass, setting
from det_core.slots import AnchorConfig, AssignerConfig, CoderConfig, ConvConfig, LossConfig, NormConfig
from det_core.specs import FeatureSpec

if TYPE_CHECKING:
    from det_plugin_retinanet.head import RetinaNetHead

OCTAVE = tuple(4 * 2 ** (i / 3) for i in range(3))  # three scales, the first 4 strides long


@configclass
class RetinaNetHeadConfig(DetectingHeadConfig):
    """Classes and boxes at every location of every level (Lin et al., Focal Loss, 2017)."""

    type: ClassVar[str] = "retinanet"

    channels: int = setting("of both towers", default=256, least=1)
    num_convs: int = setting("3x3 convolutions of each tower", default=4, least=0)
    anchors: AnchorConfig = setting("reference boxes", default=GridAnchorsConfig(scales=OCTAVE))
    coder: CoderConfig = setting("box regression targets", default=DeltaCoderConfig())
    assigner: AssignerConfig = setting(
        "which anchors stand for objects; all others below `negative` are background",
        default=MaxIoUAssignerConfig(positive=0.5, negative=0.4, low_quality=True, min_positive=0.0),
    )
    cls_loss: LossConfig = setting("classification, of all anchors", default=FocalConfig())
    box_loss: LossConfig = setting("box regression, of positive anchors", default=L1Config())
    prior: float = setting(
        "score that a fresh head gives everything, so that background does not drown the first steps",
        default=0.01,
        above=0,
        below=1,
    )
    norm: NormConfig | None = setting(
        "after every convolution of the towers; shared by levels, so none that counts them", default=None
    )
    conv: ConvConfig = setting("the towers' convolutions", default=Conv2dConfig())

    def anchor_config(self) -> AnchorConfig:
        return self.anchors

    def check(self, features: FeatureSpec) -> None:
        features.same_channels(f"dense_head {self.type!r}")
        self.anchors.anchors_per_cell()
        self.anchors.anchors_per_level(len(features.strides))

    def build(self, features: FeatureSpec, num_classes: int) -> RetinaNetHead:
        from det_plugin_retinanet.head import RetinaNetHead

        return RetinaNetHead(self, features, num_classes)
