"""The configuration of ResNet. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import field, frozen, validators

from det_core.config.base import BackboneConfig, ConvConfig, FeatureSpec, NormConfig, doc
from det_core.model.layer_config import BatchNormConfig, Conv2dConfig

if TYPE_CHECKING:
    from det_plugin_resnet.backbone import ResNet

STAGE_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STAGE_PLANES = (64, 128, 256, 512)


@frozen(kw_only=True)
class ResNetConfig(BackboneConfig):
    """ResNet (He et al., 2016), with the freezing that detectors use."""

    type: ClassVar[str] = "resnet"

    depth: Literal[18, 34, 50, 101, 152] = field(
        default=50, validator=validators.in_(tuple(STAGE_BLOCKS)), metadata=doc("layers")
    )
    style: Literal["pytorch", "caffe"] = field(
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
    conv: ConvConfig = field(default=Conv2dConfig(), metadata=doc("all convolutions but the stem's"))
    zero_init_residual: bool = field(
        default=True, metadata=doc("fresh residual branches begin at zero (their last norm's weight)")
    )
    pretrained: str | None = field(
        default=None, metadata=doc("initial weights: torchvision:resnet50, or a file with torchvision's names")
    )

    def __attrs_post_init__(self) -> None:
        if list(self.stages) != sorted(set(self.stages)):
            raise ValueError(f"stages {list(self.stages)} must ascend without repeats")

    @property
    def expansion(self) -> int:
        """Output channels of a block per plane: bottlenecks widen fourfold."""
        return 1 if self.depth < 50 else 4

    def feature_spec(self) -> FeatureSpec:
        return FeatureSpec(
            channels=[STAGE_PLANES[s - 1] * self.expansion for s in self.stages],
            strides=[2 ** (s + 1) for s in self.stages],
        )

    def build(self) -> ResNet:
        from det_plugin_resnet.backbone import ResNet

        return ResNet(self)
