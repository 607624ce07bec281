"""Configurations. Imports no torch: `build()` imports the modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from det_core.boxes.box_config import DeltaCoderConfig, MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.model.layer_config import Conv2dConfig, GroupNormConfig, RoIAlignConfig
from det_core.model.loss_config import CrossEntropyConfig, SmoothL1Config
from det_core.settings import configclass, setting
from det_core.slots import (
    AssignerConfig,
    BackboneConfig,
    CoderConfig,
    ConvConfig,
    LossConfig,
    NormConfig,
    RoIHeadConfig,
    RoIPoolConfig,
    SamplerConfig,
)
from det_core.specs import FeatureSpec

if TYPE_CHECKING:
    from det_plugin_double_head.backbone import PlainNet
    from det_plugin_double_head.roi_head import DoubleHead


@configclass
class PlainNetConfig(BackboneConfig):
    """A plain stack of 3x3 convolutions in four stages, each twice as wide as the previous one."""

    type: ClassVar[str] = "plain_net"

    width: int = setting("channels of the first stage, at stride 4", default=32, least=1)
    depth: int = setting("convolutions per stage", default=2, least=1)
    norm: NormConfig = setting("after every convolution", default=GroupNormConfig(groups=8))
    conv: ConvConfig = setting("all convolutions except the stem's", default=Conv2dConfig())

    def feature_spec(self) -> FeatureSpec:
        return FeatureSpec(channels=[self.width * 2**i for i in range(4)], strides=(4, 8, 16, 32))

    def build(self) -> PlainNet:
        from det_plugin_double_head.backbone import PlainNet

        return PlainNet(self)


@configclass
class DoubleHeadConfig(RoIHeadConfig):
    """A fully connected branch for classification, a convolutional one for boxes (Wu et al., Double-Head, 2020)."""

    type: ClassVar[str] = "double_head"

    roi_pool: RoIPoolConfig = setting("pooling for both branches", default=RoIAlignConfig())
    num_fcs: int = setting("number of hidden layers of the class branch", default=2, least=1)
    fc_channels: int = setting("channels of the hidden layers", default=1024, least=1)
    num_blocks: int = setting("number of residual blocks of the box branch", default=2, least=0)
    conv_channels: int = setting("channels of the box branch", default=256, least=1)
    norm: NormConfig | None = setting("after every convolution of the box branch", default=GroupNormConfig(groups=16))
    conv: ConvConfig = setting("the convolutions of the box branch", default=Conv2dConfig())
    box_region_scale: float = setting(
        "factor that enlarges the box branch's regions, so that they include an object's edges",
        default=1.3,
        least=1,
    )
    assigner: AssignerConfig = setting("assigns proposals to objects", default=MaxIoUAssignerConfig())
    sampler: SamplerConfig = setting(
        "selects the proposals for the losses", default=RandomSamplerConfig(count=512, positive_fraction=0.25)
    )
    coder: CoderConfig = setting("box regression targets", default=DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2)))
    cls_loss: LossConfig = setting("classification", default=CrossEntropyConfig(weight=2.0))
    box_loss: LossConfig = setting("box regression", default=SmoothL1Config(weight=2.0))
    score_threshold: float = setting("keep detections with a score above this", default=0.05, least=0, most=1)
    nms_threshold: float = setting("IoU above which a detection is suppressed", default=0.5, least=0, most=1)
    max_detections: int = setting("maximum detections per image", default=100, least=1)

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
