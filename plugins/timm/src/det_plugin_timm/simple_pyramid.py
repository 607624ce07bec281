"""The simple feature pyramid of ViTDet (Li et al., 2022, section 3): maps of four strides from the last map of a ViT.

Letters: N images, C channels, h w size of a map, p stride of the ViT.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of maps (N, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class SimplePyramid(nn.Module):
    """The last map to maps of strides p/4, p/2, p and 2p, or some of these, of C/4, C/2, C and C channels.

    The convolutions of ViTDet after these, to 256 channels, are the neck's: `level_convs`, or an FPN.
    """

    def __init__(self, channels: int, factors: list[float]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_level(channels, factor) for factor in factors)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, h, w) to a map (N, C', h / factor, w / factor) for each factor."""
        return [level(x) for level in self.levels]


def _level(channels: int, factor: float) -> nn.Module:
    """The layers that multiply the stride by a factor of 1/4, 1/2, 1 or 2."""
    half, quarter = channels // 2, channels // 4
    if factor == 0.25:
        first = nn.ConvTranspose2d(channels, half, 2, stride=2)
        return nn.Sequential(first, ChannelNorm(half), nn.GELU(), nn.ConvTranspose2d(half, quarter, 2, stride=2))
    if factor == 0.5:
        return nn.ConvTranspose2d(channels, half, 2, stride=2)
    return nn.Identity() if factor == 1 else nn.MaxPool2d(2, stride=2)
