"""The configuration of FPN. Imports no torch."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

from attrs import field, frozen, validators

from det_core.config.base import ConfigError, ConvConfig, FeatureSpec, NeckConfig, NormConfig, Problem, doc
from det_core.model.layer_config import Conv2dConfig

if TYPE_CHECKING:
    from det_plugin_fpn.neck import FPN


@frozen(kw_only=True)
class FPNConfig(NeckConfig):
    """Feature pyramid network (Lin et al., 2017)."""

    type: ClassVar[str] = "fpn"

    channels: int = field(default=256, validator=validators.ge(1), metadata=doc("of every output level"))
    levels: int = field(default=5, validator=validators.ge(1), metadata=doc("output levels, extra ones included"))
    start: int = field(default=0, validator=validators.ge(0), metadata=doc("first input level that is used"))
    extra: Literal["max_pool", "conv_input", "conv_output"] = field(
        default="max_pool",
        validator=validators.in_(("max_pool", "conv_input", "conv_output")),
        metadata=doc(
            "levels beyond the inputs: the last output, every second pixel; or 3x3 convolutions of stride 2, the first "
            "on the last input (RetinaNet) or on the last output, each further one on the one before"
        ),
    )
    extra_relu: bool = field(default=False, metadata=doc("a ReLU in front of each further of these convolutions"))
    norm: NormConfig | None = field(default=None, metadata=doc("after every convolution"))
    conv: ConvConfig = field(default=Conv2dConfig(), metadata=doc("lateral, output and extra convolutions"))

    def feature_spec(self, inputs: FeatureSpec) -> FeatureSpec:
        used = inputs.strides[self.start :]
        if not used:
            raise ConfigError.at("start", f"{self.start} leaves none of the inputs (strides {list(inputs.strides)})")
        if self.levels < len(used):
            raise ConfigError.at(
                "levels",
                f"{self.levels} output levels from {len(used)} inputs (strides {list(used)}); give at least "
                f"{len(used)} levels, or a higher start",
            )
        doubled = [b == 2 * a for a, b in pairwise(used)]
        if not all(doubled):
            raise ConfigError([Problem("", f"needs inputs whose strides double, but gets {list(used)}")])
        strides = list(used) + [used[-1] * 2 ** (i + 1) for i in range(self.levels - len(used))]
        return FeatureSpec(channels=(self.channels,) * self.levels, strides=strides)

    def build(self, inputs: FeatureSpec) -> FPN:
        from det_plugin_fpn.neck import FPN

        return FPN(self, inputs)
