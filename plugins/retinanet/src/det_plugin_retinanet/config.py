"""The configuration of RetinaNet's head. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen, validators

from det_core.boxes.config import DeltaCoderConfig, GridAnchorsConfig, MaxIoUAssignerConfig
from det_core.config.base import (
    AnchorConfig,
    AssignerConfig,
    CoderConfig,
    ConvConfig,
    FeatureSpec,
    LossConfig,
    NormConfig,
    doc,
)
from det_core.model.dense_config import DetectingHeadConfig
from det_core.model.layer_config import Conv2dConfig
from det_core.model.loss_config import FocalConfig, L1Config

if TYPE_CHECKING:
    from det_plugin_retinanet.head import RetinaNetHead

OCTAVE = tuple(4 * 2 ** (i / 3) for i in range(3))  # three scales, the first 4 strides long


@frozen(kw_only=True)
class RetinaNetHeadConfig(DetectingHeadConfig):
    """Classes and boxes at every location of every level (Lin et al., Focal Loss, 2017)."""

    type: ClassVar[str] = "retinanet"

    channels: int = field(default=256, validator=validators.ge(1), metadata=doc("of both towers"))
    num_convs: int = field(default=4, validator=validators.ge(0), metadata=doc("3x3 convolutions of each tower"))
    anchors: AnchorConfig = field(default=GridAnchorsConfig(scales=OCTAVE), metadata=doc("reference boxes"))
    coder: CoderConfig = field(default=DeltaCoderConfig(), metadata=doc("box regression targets"))
    assigner: AssignerConfig = field(
        default=MaxIoUAssignerConfig(positive=0.5, negative=0.4, low_quality=True, min_positive=0.0),
        metadata=doc("which anchors stand for objects; all others below `negative` are background"),
    )
    cls_loss: LossConfig = field(default=FocalConfig(), metadata=doc("classification, of all anchors"))
    box_loss: LossConfig = field(default=L1Config(), metadata=doc("box regression, of positive anchors"))
    prior: float = field(
        default=0.01,
        validator=[validators.gt(0.0), validators.lt(1.0)],
        metadata=doc("score that a fresh head gives everything, so that background does not drown the first steps"),
    )
    norm: NormConfig | None = field(
        default=None, metadata=doc("after every convolution of the towers; shared by levels, so none that counts them")
    )
    conv: ConvConfig = field(default=Conv2dConfig(), metadata=doc("the towers' convolutions"))

    def check(self, features: FeatureSpec) -> None:
        features.same_channels(f"dense_head {self.type!r}")
        self.anchors.anchors_per_cell()
        self.anchors.anchors_per_level(len(features.strides))

    def build(self, features: FeatureSpec, num_classes: int) -> RetinaNetHead:
        from det_plugin_retinanet.head import RetinaNetHead

        return RetinaNetHead(self, features, num_classes)
