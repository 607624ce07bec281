"""The configuration of FPN. Imports no torch."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.errors import ConfigError, Problem
from det_core.model.layer_config import Conv2dConfig
from det_core.settings import configclass, setting
from det_core.slots import ConvConfig, NeckConfig, NormConfig
from det_core.specs import FeatureSpec

if TYPE_CHECKING:
    from det_plugin_fpn.neck import FPN


@configclass
class FPNConfig(NeckConfig):
    """Feature pyramid network (Lin et al., 2017)."""

    type: ClassVar[str] = "fpn"

    channels: int = setting("channels of every output level", default=256, least=1)
    levels: int = setting("number of output levels, including extra ones", default=5, least=1, most=16)
    start: int = setting("first input level to use", default=0, least=0)
    extra: Literal["max_pool", "conv_input", "conv_output"] = setting(
        "levels beyond the inputs: max_pool subsamples the last output; conv_input and conv_output apply 3x3 "
        "convolutions of stride 2, the first to the last input (RetinaNet) or the last output",
        default="max_pool",
    )
    extra_relu: bool = setting("apply a ReLU before the second and later extra convolutions", default=False)
    norm: NormConfig | None = setting("after every convolution", default=None)
    conv: ConvConfig = setting("lateral, output and extra convolutions", default=Conv2dConfig())

    def feature_spec(self, inputs: FeatureSpec) -> FeatureSpec:
        used = inputs.strides[self.start :]
        if not used:
            raise ConfigError.at("start", f"{self.start} leaves no input level (strides {list(inputs.strides)})")
        if self.levels < len(used):
            raise ConfigError.at(
                "levels",
                f"{self.levels} output levels from {len(used)} inputs (strides {list(used)}); give at least "
                f"{len(used)} levels, or a higher start",
            )
        if not all(b in (a, 2 * a) for a, b in pairwise(used)):
            raise ConfigError([Problem("", f"requires inputs whose strides double or stay, found {list(used)}")])
        strides = list(used) + [used[-1] * 2 ** (i + 1) for i in range(self.levels - len(used))]
        return FeatureSpec(channels=(self.channels,) * self.levels, strides=strides)

    def build(self, inputs: FeatureSpec) -> FPN:
        from det_plugin_fpn.neck import FPN

        return FPN(self, inputs)
