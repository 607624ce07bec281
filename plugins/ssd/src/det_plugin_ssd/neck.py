"""SSD's extra levels (Liu et al., SSD, 2016, figure 2).

Letters: N images, L levels, C channels, H W size of a level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from det_core.contracts import Neck
from det_core.errors import DetError
from det_core.model.layers import ConvNorm, init_convs, xavier_init
from det_core.specs import ConvSpec, FeatureSpec
from det_plugin_ssd.config import ExtraLevelConfig, SSDNeckConfig
from det_plugin_ssd.separable import ConvNormReLU6, small_init


class L2Norm(nn.Module):
    """L2 normalisation of each pixel, then a learned scale per channel (Liu et al., ParseNet, 2015, section 3.3)."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; computed in at least float32."""
        wide = x if x.dtype == torch.float64 else x.float()
        unit = F.normalize(wide, dim=1, eps=1e-10)
        return (self.weight[:, None, None] * unit).to(x.dtype)


class SSDNeck(Neck):
    """Normalises the finest map, and adds levels after the coarsest."""

    def __init__(self, config: SSDNeckConfig, inputs: FeatureSpec) -> None:
        super().__init__()
        self.config = config
        self.out = config.feature_spec(inputs)
        self.l2_norm = None if config.scale is None else L2Norm(inputs.channels[0], config.scale)
        self.extra = nn.ModuleList()
        channels = inputs.channels[-1]
        for level in config.extra:
            self.extra.append((_separable if config.separable else _plain)(channels, level, config))
            channels = level.channels
        init_convs(self, small_init if config.separable else xavier_init)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """L_in maps to these, the first one normalised, and the extra levels; DetError if the input is too small."""
        first = features[0] if self.l2_norm is None else self.l2_norm(features[0])
        maps = [first, *features[1:]]
        for number, (layer, level) in enumerate(zip(self.extra, self.config.extra, strict=True)):
            height, width = maps[-1].shape[-2:]
            if min(height, width) + 2 * level.padding < level.kernel:
                raise DetError(
                    f"the input is too small: the neck's extra[{number}] has a kernel of {level.kernel}, but its input "
                    f"is {height} x {width}; resize to larger images, or remove the last levels"
                )
            maps.append(layer(maps[-1]))
        return maps


def _plain(channels: int, level: ExtraLevelConfig, config: SSDNeckConfig) -> nn.Sequential:
    """A 1x1 convolution to half the channels, then one of the level's kernel, each with a ReLU."""
    half, conv, norm = level.channels // 2, config.conv, config.norm
    stride, padding = level.stride, level.padding
    return nn.Sequential(
        ConvNorm(channels, half, 1, conv=conv, norm=norm, relu=True),
        ConvNorm(half, level.channels, level.kernel, stride=stride, padding=padding, conv=conv, norm=norm, relu=True),
    )


def _separable(channels: int, level: ExtraLevelConfig, config: SSDNeckConfig) -> nn.Sequential:
    """A 1x1 convolution to half the channels, a depthwise one of the level's kernel, and a 1x1, each with a ReLU6."""
    half, conv, norm = level.channels // 2, config.conv, config.norm
    depthwise = ConvSpec(half, half, level.kernel, level.stride, level.padding, groups=half, bias=norm is None)
    return nn.Sequential(
        ConvNormReLU6(ConvSpec(channels, half, 1, bias=norm is None), conv, norm),
        ConvNormReLU6(depthwise, conv, norm),
        ConvNormReLU6(ConvSpec(half, level.channels, 1, bias=norm is None), conv, norm),
    )
