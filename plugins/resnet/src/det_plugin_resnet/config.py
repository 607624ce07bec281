"""The configuration of ResNet. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from attrs import field, frozen, validators

from det_core.config.base import (
    BackboneConfig,
    ConfigError,
    ConvConfig,
    FeatureSpec,
    NormConfig,
    Problem,
    RegionSpec,
    TrunkConfig,
    doc,
)
from det_core.model.layer_config import BatchNormConfig, Conv2dConfig

if TYPE_CHECKING:
    from det_plugin_resnet.backbone import ResNet
    from det_plugin_resnet.stage import ResNetStage

STAGE_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STAGE_PLANES = (64, 128, 256, 512)

Style = Literal["pytorch", "caffe"]


class BlockSettings(Protocol):
    """What a residual block needs to know."""

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
    """Output channels of a block per plane: bottlenecks widen fourfold."""
    return 1 if depth < 50 else 4


def _check_blocks(settings: BlockSettings) -> None:
    """Groups are those of bottlenecks, and must divide their width."""
    if expansion(settings.depth) == 1 and (settings.groups, settings.base_width) != (1, 64):
        found = f"depth {settings.depth} has no bottlenecks, so groups must be 1 and base_width 64"
        raise ConfigError([Problem("groups", f"{found}; take depth 50 or more for ResNeXt")])


@frozen(kw_only=True)
class ResNetConfig(BackboneConfig):
    """ResNet (He et al., 2016) and ResNeXt (Xie et al., 2017), with the freezing that detectors use."""

    type: ClassVar[str] = "resnet"

    depth: Literal[18, 34, 50, 101, 152] = field(
        default=50, validator=validators.in_(tuple(STAGE_BLOCKS)), metadata=doc("layers")
    )
    groups: int = field(
        default=1, validator=validators.ge(1), metadata=doc("of a bottleneck's 3x3 convolution; 32 or 64 in ResNeXt")
    )
    base_width: int = field(
        default=64, validator=validators.ge(1), metadata=doc("of a group in the first stage; 4 in ResNeXt")
    )
    style: Style = field(
        default="pytorch",
        validator=validators.in_(("pytorch", "caffe")),
        metadata=doc("a bottleneck's stride is on its 3x3 (pytorch) or first 1x1 (caffe)"),
    )
    stages: tuple[int, ...] = field(
        default=(1, 2, 3, 4),
        validator=[validators.min_len(1), validators.deep_iterable(validators.in_((1, 2, 3, 4)))],
        metadata=doc("stages handed on: 1 is C2 at stride 4, 4 is C5 at stride 32; later ones are not built"),
    )
    frozen_stages: int = field(
        default=1,
        validator=[validators.ge(-1), validators.le(4)],
        metadata=doc("-1 trains all, 0 freezes the stem, n the stem and stages 1..n"),
    )
    norm: NormConfig = field(default=BatchNormConfig(frozen_statistics=True), metadata=doc("after every convolution"))
    conv: ConvConfig = field(default=Conv2dConfig(), metadata=doc("all convolutions, the stem's too"))
    spatial_conv: ConvConfig | None = field(
        default=None, metadata=doc("the 3x3 convolutions of blocks in `spatial_stages`; null = as the others")
    )
    spatial_stages: tuple[int, ...] = field(
        default=(2, 3, 4),
        validator=validators.deep_iterable(validators.in_((1, 2, 3, 4))),
        metadata=doc("stages that `spatial_conv` is for: those of C3 to C5"),
    )
    zero_init_residual: bool = field(
        default=True, metadata=doc("fresh residual branches begin at zero (their last norm's weight)")
    )
    pretrained: str | None = field(
        default=None, metadata=doc("initial weights: torchvision:resnet50, or a file with torchvision's names")
    )

    def __attrs_post_init__(self) -> None:
        if list(self.stages) != sorted(set(self.stages)):
            raise ValueError(f"stages {list(self.stages)} must ascend without repeats")
        _check_blocks(self)

    def spatial(self, stage: int) -> ConvConfig:
        """The 3x3 convolution of the blocks of a stage."""
        return self.conv if self.spatial_conv is None or stage not in self.spatial_stages else self.spatial_conv

    def feature_spec(self) -> FeatureSpec:
        return FeatureSpec(
            channels=[STAGE_PLANES[s - 1] * expansion(self.depth) for s in self.stages],
            strides=[2 ** (s + 1) for s in self.stages],
        )

    def build(self) -> ResNet:
        from det_plugin_resnet.backbone import ResNet

        return ResNet(self)


@frozen(kw_only=True)
class ResNetStageConfig(TrunkConfig):
    """One stage of ResNet as the trunk that a RoI head's branches share: res5 of the C4 models."""

    type: ClassVar[str] = "resnet_stage"

    depth: Literal[18, 34, 50, 101, 152] = field(
        default=50, validator=validators.in_(tuple(STAGE_BLOCKS)), metadata=doc("layers of the ResNet it belongs to")
    )
    number: Literal[1, 2, 3, 4] = field(
        default=4, validator=validators.in_((1, 2, 3, 4)), metadata=doc("which stage; 4 is res5")
    )
    stride: Literal[1, 2] = field(default=2, validator=validators.in_((1, 2)), metadata=doc("of its first block"))
    groups: int = field(default=1, validator=validators.ge(1), metadata=doc("as in the backbone"))
    base_width: int = field(default=64, validator=validators.ge(1), metadata=doc("as in the backbone"))
    style: Style = field(
        default="pytorch", validator=validators.in_(("pytorch", "caffe")), metadata=doc("as in the backbone")
    )
    norm: NormConfig = field(default=BatchNormConfig(frozen_statistics=True), metadata=doc("after every convolution"))
    conv: ConvConfig = field(default=Conv2dConfig(), metadata=doc("all convolutions"))
    spatial_conv: ConvConfig | None = field(
        default=None, metadata=doc("the 3x3 convolutions of its blocks; null = as the others")
    )
    zero_init_residual: bool = field(
        default=True, metadata=doc("fresh residual branches begin at zero (their last norm's weight)")
    )
    pretrained: str | None = field(
        default=None, metadata=doc("initial weights of the whole ResNet, of which this stage's are taken")
    )

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
