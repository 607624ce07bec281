"""The convolutions of ViTDet's simple feature pyramid (Li et al., 2022, section 3), as a neck.

Letters: N images, C channels, h w size of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from det_core.contracts import Neck
from det_core.specs import FeatureSpec
from det_plugin_timm.config import LevelConvsConfig
from det_plugin_timm.simple_pyramid import ChannelNorm


class LevelConvs(Neck):
    """A 1x1 and a 3x3 convolution of each map, both without bias, each followed by a norm of its channels."""

    def __init__(self, config: LevelConvsConfig, inputs: FeatureSpec) -> None:
        super().__init__()
        self.config = config
        self.out = config.feature_spec(inputs)
        width = config.channels
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, width, 1, bias=False),
                ChannelNorm(width, eps=1e-6),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                ChannelNorm(width, eps=1e-6),
            )
            for channels in inputs.channels
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, C_l, h, w) to as many maps (N, channels, h, w), and extra levels of half the size each."""
        maps = [level(x) for level, x in zip(self.levels, features, strict=True)]
        while len(maps) < self.config.levels:
            maps.append(F.max_pool2d(maps[-1], 1, stride=2))
        return maps
