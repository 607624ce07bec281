"""Configurations of weight-standardised and deformable layers. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen, validators

from det_core.config.base import ConvConfig, FeatureSpec, RegionSpec, RoIPoolConfig, doc
from det_core.model.layer_config import pooled_spec

if TYPE_CHECKING:
    from torch import nn

    from det_plugin_gn_ws_dcn.roi_pool import DeformRoIPool

AT_LEAST_1 = validators.ge(1)


@frozen(kw_only=True)
class WSConv2dConfig(ConvConfig):
    """Convolution whose filters are standardised before use (Qiao et al., Weight Standardization, 2019)."""

    type: ClassVar[str] = "ws_conv2d"

    eps: float = field(default=1e-5, validator=validators.gt(0), metadata=doc("added to a filter's deviation"))

    def build(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> nn.Module:
        from det_plugin_gn_ws_dcn.convolution import WSConv2d

        return WSConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            standard_eps=self.eps,
        )


@frozen(kw_only=True)
class DeformConv2dConfig(ConvConfig):
    """Deformable convolution (Dai et al., 2017); `modulated` is its second version (Zhu et al., 2019)."""

    type: ClassVar[str] = "deform_conv2d"

    modulated: bool = field(default=False, metadata=doc("each tap also has a weight, predicted like its offset"))
    offset_groups: int = field(
        default=1, validator=AT_LEAST_1, metadata=doc("groups of input channels with offsets of their own")
    )

    def build(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> nn.Module:
        from det_core.config.base import ConfigError
        from det_plugin_gn_ws_dcn.convolution import DeformConv2d

        if in_channels % self.offset_groups:
            raise ConfigError.at(
                "offset_groups",
                f"{self.offset_groups} groups do not divide {in_channels} channels; choose a divisor of {in_channels}",
            )
        return DeformConv2d(
            self,
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )


@frozen(kw_only=True)
class DeformRoIPoolConfig(RoIPoolConfig):
    """Deformable RoI pooling over several levels (Dai et al., 2017); `modulated` also weighs bins (Zhu et al., 2019).

    Fully connected layers, of each level's own, predict how far each bin moves from what plain pooling shows.
    """

    type: ClassVar[str] = "deform_roi_pool"

    size: int = field(default=7, validator=AT_LEAST_1, metadata=doc("output height and width"))
    strides: tuple[int, ...] = field(
        default=(4, 8, 16, 32), validator=validators.min_len(1), metadata=doc("levels to pool from, finest first")
    )
    modulated: bool = field(default=False, metadata=doc("each bin also has a weight"))
    fc_channels: int = field(default=1024, validator=AT_LEAST_1, metadata=doc("of the hidden layers"))
    sampling: int = field(default=0, validator=validators.ge(0), metadata=doc("samples per bin and axis; 0 = adaptive"))
    gamma: float = field(
        default=0.1,
        validator=validators.gt(0),
        metadata=doc("share of a region's size that an offset of 1 moves a bin"),
    )
    finest_scale: float = field(
        default=56.0, validator=validators.gt(0), metadata=doc("regions below twice this side use the finest level")
    )

    def region_spec(self, inputs: FeatureSpec) -> RegionSpec:
        return pooled_spec(inputs, self.strides, self.size, f"roi_pool {self.type!r}")

    def build(self, inputs: FeatureSpec) -> DeformRoIPool:
        from det_plugin_gn_ws_dcn.roi_pool import DeformRoIPool

        return DeformRoIPool(self, inputs)
