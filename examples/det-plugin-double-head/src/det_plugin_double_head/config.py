"""What a user can set. Imports no torch: the modules are imported when they are built."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen, validators
from det_core.boxes.config import DeltaCoderConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.config.base import (
    AssignerConfig,
    BackboneConfig,
    CoderConfig,
    ConvConfig,
    FeatureSpec,
    LossConfig,
    NormConfig,
    RoIHeadConfig,
    RoIPoolConfig,
    SamplerConfig,
    doc,
)
from det_core.model.layer_config import Conv2dConfig, GroupNormConfig, RoIAlignConfig
from det_core.model.loss_config import CrossEntropyConfig, SmoothL1Config

if TYPE_CHECKING:
    from det_plugin_double_head.backbone import PlainNet
    from det_plugin_double_head.roi_head import DoubleHead

AT_LEAST_1 = validators.ge(1)
FRACTION = [validators.ge(0.0), validators.le(1.0)]


@frozen(kw_only=True)
class PlainNetConfig(BackboneConfig):
    """A plain stack of 3x3 convolutions in four stages, each twice as wide as the one before."""

    type: ClassVar[str] = "plain_net"

    width: int = field(default=32, validator=AT_LEAST_1, metadata=doc("channels of the first stage, at stride 4"))
    depth: int = field(default=2, validator=AT_LEAST_1, metadata=doc("convolutions per stage"))
    norm: NormConfig = field(default=GroupNormConfig(groups=8), metadata=doc("after every convolution"))
    conv: ConvConfig = field(default=Conv2dConfig(), metadata=doc("all convolutions but the stem's"))

    def feature_spec(self) -> FeatureSpec:
        return FeatureSpec(channels=[self.width * 2**i for i in range(4)], strides=(4, 8, 16, 32))

    def build(self) -> PlainNet:
        from det_plugin_double_head.backbone import PlainNet

        return PlainNet(self)


@frozen(kw_only=True)
class DoubleHeadConfig(RoIHeadConfig):
    """A fully connected branch that classifies, a convolutional one that regresses (Wu et al., Double-Head, 2020)."""

    type: ClassVar[str] = "double_head"

    roi_pool: RoIPoolConfig = field(default=RoIAlignConfig(), metadata=doc("regions for both branches"))
    num_fcs: int = field(default=2, validator=AT_LEAST_1, metadata=doc("hidden layers of the class branch"))
    fc_channels: int = field(default=1024, validator=AT_LEAST_1, metadata=doc("of these"))
    num_blocks: int = field(default=2, validator=validators.ge(0), metadata=doc("residual blocks of the box branch"))
    conv_channels: int = field(default=256, validator=AT_LEAST_1, metadata=doc("of the box branch"))
    norm: NormConfig | None = field(
        default=GroupNormConfig(groups=16), metadata=doc("after every convolution of the box branch")
    )
    conv: ConvConfig = field(default=Conv2dConfig(), metadata=doc("the convolutions of the box branch"))
    box_region_scale: float = field(
        default=1.3,
        validator=validators.ge(1),
        metadata=doc("the box branch sees regions enlarged by this factor, so that an object's edges are inside"),
    )
    assigner: AssignerConfig = field(default=MaxIoUAssignerConfig(), metadata=doc("proposals to objects"))
    sampler: SamplerConfig = field(
        default=RandomSamplerConfig(count=512, positive_fraction=0.25), metadata=doc("which proposals train")
    )
    coder: CoderConfig = field(
        default=DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2)), metadata=doc("box regression targets")
    )
    cls_loss: LossConfig = field(default=CrossEntropyConfig(weight=2.0), metadata=doc("classification"))
    box_loss: LossConfig = field(default=SmoothL1Config(weight=2.0), metadata=doc("box regression"))
    score_threshold: float = field(default=0.05, validator=FRACTION, metadata=doc("detections above it are kept"))
    nms_threshold: float = field(default=0.5, validator=FRACTION, metadata=doc("IoU above which a detection goes"))
    max_detections: int = field(default=100, validator=AT_LEAST_1, metadata=doc("best per image"))

    def check(self, features: FeatureSpec) -> None:
        self.roi_pool.region_spec(features)

    def build(self, features: FeatureSpec, num_classes: int) -> DoubleHead:
        from det_plugin_double_head.branches import BoxBranch, ClassBranch
        from det_plugin_double_head.roi_head import DoubleHead

        regions = self.roi_pool.region_spec(features)
        return DoubleHead(
            self,
            roi_pool=self.roi_pool.build(features),
            class_branch=ClassBranch(self, regions, num_classes),
            box_branch=BoxBranch(self, regions, num_classes),
        )
