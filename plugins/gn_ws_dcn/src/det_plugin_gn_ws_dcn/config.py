"""Configurations of weight-standardised and deformable layers. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from det_core.errors import ConfigError
from det_core.model.layer_config import pooled_spec
from det_core.settings import configclass, setting
from det_core.slots import ConvConfig, RoIPoolConfig
from det_core.specs import ConvSpec, FeatureSpec, RegionSpec

if TYPE_CHECKING:
    from torch import nn

    from det_plugin_gn_ws_dcn.roi_pool import DeformRoIPool


@configclass
class WSConv2dConfig(ConvConfig):
    """Convolution with standardised filters (Qiao et al., Weight Standardization, 2019)."""

    type: ClassVar[str] = "ws_conv2d"

    eps: float = setting("added to a filter's standard deviation", default=1e-5, above=0)

    def build(self, spec: ConvSpec) -> nn.Module:
        from det_plugin_gn_ws_dcn.convolution import WSConv2d

        return WSConv2d(spec, self.eps)


@configclass
class DeformConv2dConfig(ConvConfig):
    """Deformable convolution (Dai et al., 2017); `modulated` is its second version (Zhu et al., 2019)."""

    type: ClassVar[str] = "deform_conv2d"

    modulated: bool = setting("also predict a weight for each tap", default=False)
    offset_groups: int = setting("groups of input channels with separate offsets", default=1, least=1)

    def build(self, spec: ConvSpec) -> nn.Module:
        from det_plugin_gn_ws_dcn.convolution import DeformConv2d

        if spec.in_channels % self.offset_groups:
            raise ConfigError.at(
                "offset_groups",
                f"{self.offset_groups} groups do not divide {spec.in_channels} channels; choose a divisor of that",
            )
        return DeformConv2d(self, spec)


@configclass
class DeformRoIPoolConfig(RoIPoolConfig):
    """Deformable RoI pooling over several levels (Dai et al., 2017); `modulated` also weights bins (Zhu et al., 2019).

    Each level has fully connected layers, which predict the offset of each bin from plainly pooled features.
    """

    type: ClassVar[str] = "deform_roi_pool"

    size: int = setting("output height and width", default=7, least=1)
    strides: tuple[int, ...] = setting(
        "strides of the levels to pool from, finest first", default=(4, 8, 16, 32), min_items=1
    )
    modulated: bool = setting("also predict a weight for each bin", default=False)
    fc_channels: int = setting("channels of the hidden layers", default=1024, least=1)
    sampling: int = setting("samples per bin and axis (0: adaptive)", default=0, least=0)
    alignment: Literal["aligned", "v1"] = setting(
        "aligned: as RoIAlign, with pixel centres at integers; v1: regions rounded to whole pixels, and 4 points per "
        "bin and axis at the left edges of their cells, whatever `sampling` (mmdet 0.x and 1.x)",
        default="aligned",
        conventions={"mmdet1": "v1"},
    )
    gamma: float = setting("shift of a bin for an offset of 1, relative to the region's size", default=0.1, above=0)
    finest_scale: float = setting("regions with a side below twice this use the finest level", default=56.0, above=0)

    def region_spec(self, inputs: FeatureSpec) -> RegionSpec:
        return pooled_spec(inputs, self.strides, self.size, f"roi_pool {self.type!r}")

    def build(self, inputs: FeatureSpec) -> DeformRoIPool:
        from det_plugin_gn_ws_dcn.roi_pool import DeformRoIPool

        return DeformRoIPool(self, inputs)
