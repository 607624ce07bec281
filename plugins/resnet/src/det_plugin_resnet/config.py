"""The configuration of ResNet. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from det_core.errors import ConfigError, Problem
from det_core.model.layer_config import BatchNormConfig, Conv2dConfig
from det_core.settings import configclass, setting
from det_core.slots import IN_CHANNELS, BackboneConfig, ConvConfig, NormConfig, TrunkConfig
from det_core.specs import FeatureSpec, RegionSpec

if TYPE_CHECKING:
    from det_plugin_resnet.backbone import ResNet
    from det_plugin_resnet.stage import ResNetStage

STAGE_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STAGE_PLANES = (64, 128, 256, 512)

Depth = Literal[18, 34, 50, 101, 152]
Stage = Literal[1, 2, 3, 4]
Style = Literal["pytorch", "caffe"]


class BlockSettings(Protocol):
    """The settings of a residual block."""

    @property
    def depth(self) -> int: ...
    @property
    def style(self) -> Style: ...
    @property
    def groups(self) -> int: ...
    @property
    def base_width(self) -> int: ...
    @property
    def norm(self) -> NormConfig: ...
    @property
    def conv(self) -> ConvConfig: ...
    def spatial(self, stage: int) -> ConvConfig: ...


def expansion(depth: int) -> int:
    """Output channels of a block per plane: 4 for bottlenecks, 1 for basic blocks."""
    return 1 if depth < 50 else 4


def _check_blocks(settings: BlockSettings) -> None:
    """Raise ConfigError if groups or base_width are set for basic blocks, which have no grouped convolution."""
    if expansion(settings.depth) == 1 and (settings.groups, settings.base_width) != (1, 64):
        found = f"depth {settings.depth} has no bottlenecks, so groups must be 1 and base_width 64"
        raise ConfigError([Problem("groups", f"{found}; use depth 50 or more for ResNeXt")])


@configclass
class ResNetConfig(BackboneConfig):
    """ResNet (He et al., 2016) and ResNeXt (Xie et al., 2017), with frozen stages."""

    type: ClassVar[str] = "resnet"

    depth: Depth = setting("number of layers", default=50)
    groups: int = setting("groups of a bottleneck's 3x3 convolution; 32 or 64 in ResNeXt", default=1, least=1)
    base_width: int = setting("channels of a group in the first stage; 4 in ResNeXt", default=64, least=1)
    style: Style = setting(
        "where a bottleneck has its stride: on the 3x3 (pytorch) or the first 1x1 convolution (caffe)",
        default="pytorch",
    )
    stages: tuple[Stage, ...] = setting(
        "stages to return: 1 is C2 at stride 4, 4 is C5 at stride 32; later stages are not built",
        default=(1, 2, 3, 4),
        min_items=1,
    )
    frozen_stages: int = setting(
        "-1: train everything; 0: freeze the stem; n: freeze the stem and stages 1..n", default=1, least=-1, most=4
    )
    dilated: bool = setting(
        "the last stage keeps the stride of the one before, 16, and dilates its 3x3 convolutions by 2 (DC5)",
        default=False,
    )
    norm: NormConfig = setting("after every convolution", default=BatchNormConfig(frozen_statistics=True))
    conv: ConvConfig = setting("all convolutions, including the stem's", default=Conv2dConfig())
    spatial_conv: ConvConfig | None = setting(
        "3x3 convolutions of the blocks in `spatial_stages` (null: as `conv`)", default=None
    )
    spatial_stages: tuple[Stage, ...] = setting(
        "stages that use `spatial_conv`; by default C3 to C5", default=(2, 3, 4)
    )
    zero_init_residual: bool = setting("initialise the weight of each block's last norm with 0", default=True)
    in_channels: int = setting(IN_CHANNELS, default=3, least=1)
    pretrained: str | None = setting(
        "initial weights: torchvision:resnet50, or a file with torchvision's parameter names", default=None
    )

    def __attrs_post_init__(self) -> None:
        if list(self.stages) != sorted(set(self.stages)):
            raise ValueError(f"stages {list(self.stages)} must ascend without repeats")
        if self.dilated and 4 not in self.stages:
            raise ConfigError.at("dilated", f"requires the last stage, but stages are {list(self.stages)}; add stage 4")
        _check_blocks(self)

    def spatial(self, stage: int) -> ConvConfig:
        """The 3x3 convolution of the blocks of a stage."""
        return self.conv if self.spatial_conv is None or stage not in self.spatial_stages else self.spatial_conv

    def input_channels(self) -> int:
        return self.in_channels

    def feature_spec(self) -> FeatureSpec:
        return FeatureSpec(
            channels=[STAGE_PLANES[s - 1] * expansion(self.depth) for s in self.stages],
            strides=[16 if s == 4 and self.dilated else 2 ** (s + 1) for s in self.stages],
        )

    def build(self) -> ResNet:
        from det_plugin_resnet.backbone import ResNet

        return ResNet(self)


@configclass
class ResNetStageConfig(TrunkConfig):
    """One stage of ResNet as the trunk that the branches of a RoI head share: res5 of the C4 models."""

    type: ClassVar[str] = "resnet_stage"

    depth: Depth = setting("number of layers of the ResNet", default=50)
    number: Stage = setting("number of the stage; 4 is res5", default=4)
    stride: Literal[1, 2] = setting("stride of the first block", default=2)
    groups: int = setting("as in the backbone", default=1, least=1)
    base_width: int = setting("as in the backbone", default=64, least=1)
    style: Style = setting("as in the backbone", default="pytorch")
    norm: NormConfig = setting("after every convolution", default=BatchNormConfig(frozen_statistics=True))
    conv: ConvConfig = setting("all convolutions", default=Conv2dConfig())
    spatial_conv: ConvConfig | None = setting("3x3 convolutions of the blocks (null: as `conv`)", default=None)
    zero_init_residual: bool = setting("initialise the weight of each block's last norm with 0", default=True)
    pretrained: str | None = setting("initial weights of a whole ResNet; only this stage is loaded", default=None)

    def __attrs_post_init__(self) -> None:
        _check_blocks(self)

    def spatial(self, stage: int) -> ConvConfig:
        """The 3x3 convolution of its blocks."""
        return self.conv if self.spatial_conv is None else self.spatial_conv

    def region_spec(self, inputs: RegionSpec) -> RegionSpec:
        height, width = (-(-side // self.stride) for side in inputs.size)
        return RegionSpec(channels=STAGE_PLANES[self.number - 1] * expansion(self.depth), size=(height, width))

    def build(self, inputs: RegionSpec) -> ResNetStage:
        from det_plugin_resnet.stage import ResNetStage

        return ResNetStage(self, inputs)
