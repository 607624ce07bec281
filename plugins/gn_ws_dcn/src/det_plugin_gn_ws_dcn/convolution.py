"""Replacements for torch's convolution: weight-standardised, deformable, modulated deformable.

Letters: N images, C input and O output channels, G offset groups, k kernel side, H W input and h w output size.
"""

from __future__ import annotations

import torch
from attrs import asdict, evolve
from torch import Tensor, nn
from torch.nn import functional as F

import det_ops
from det_core.contracts import NotPretrained
from det_core.model.layers import kaiming_init
from det_core.specs import ConvSpec
from det_plugin_gn_ws_dcn.config import DeformConv2dConfig


class WSConv2d(nn.Conv2d):
    """Convolution whose filters have mean 0 and deviation 1 (Qiao et al., Weight Standardization, 2019, equation 5).

    Every forward computes (w - mean) / (std + eps) over a filter's inputs and taps, with the unbiased std.
    """

    def __init__(self, spec: ConvSpec, standard_eps: float) -> None:
        super().__init__(**asdict(spec))
        self.standard_eps = standard_eps

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, h, w)."""
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / (deviation + self.standard_eps)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class OffsetConv(NotPretrained):
    """The convolution that predicts offsets (and weights of taps). Its weights start at 0, so initial offsets are 0.

    It is not an `nn.Conv2d`, because backbones initialise those with random weights.
    """

    def __init__(self, spec: ConvSpec) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation = spec.stride, spec.padding, spec.dilation
        self.weight = nn.Parameter(torch.zeros(spec.out_channels, spec.in_channels, spec.kernel_size, spec.kernel_size))
        self.bias = nn.Parameter(torch.zeros(spec.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, h, w)."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation)


class DeformConv2d(nn.Module):
    """Deformable convolution: another convolution predicts the offset of each tap (Dai et al., 2017, section 2.1).

    If modulated, each tap is also multiplied by a predicted sigmoid (Zhu et al., 2019, section 4.2), initially 0.5.
    """

    def __init__(self, config: DeformConv2dConfig, spec: ConvSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        plain = nn.Conv2d(**asdict(spec))
        kaiming_init(plain)
        self.weight, self.bias = plain.weight, plain.bias
        self.taps = config.offset_groups * spec.kernel_size**2
        self.conv_offset = OffsetConv(
            evolve(spec, out_channels=(3 if config.modulated else 2) * self.taps, groups=1, bias=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, h, w)."""
        predicted, spec = self.conv_offset(x), self.spec
        mask = predicted[:, 2 * self.taps :].sigmoid() if self.config.modulated else None
        return det_ops.deform_conv2d(
            x,
            predicted[:, : 2 * self.taps],
            self.weight,
            mask,
            self.bias,
            stride=spec.stride,
            padding=spec.padding,
            dilation=spec.dilation,
            groups=spec.groups,
            offset_groups=self.config.offset_groups,
        )
