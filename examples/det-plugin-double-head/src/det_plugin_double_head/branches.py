"""The two branches of a double head (Wu et al., 2020, figure 1, b to d).

Letters: R regions, C channels, h w pooled size, K foreground classes.
"""

from __future__ import annotations

from det_core.model.layers import ConvNorm, kaiming_init, normal_init, xavier_init
from det_core.specs import RegionSpec
from torch import Tensor, nn

from det_plugin_double_head.config import DoubleHeadConfig


class ClassBranch(nn.Module):
    """Fully connected layers, then scores. They distinguish positions in a region."""

    def __init__(self, config: DoubleHeadConfig, inputs: RegionSpec, num_classes: int) -> None:
        super().__init__()
        channels = inputs.channels * inputs.size[0] * inputs.size[1]
        self.fcs = nn.ModuleList()
        for _ in range(config.num_fcs):
            layer = nn.Linear(channels, config.fc_channels)
            xavier_init(layer)
            self.fcs.append(layer)
            channels = config.fc_channels
        self.scores = nn.Linear(channels, num_classes + 1)
        normal_init(self.scores, 0.01)

    def forward(self, regions: Tensor) -> Tensor:
        """(R, C, h, w) to logits (R, K+1), background last."""
        x = regions.flatten(1)
        for layer in self.fcs:
            x = layer(x).relu()
        scores: Tensor = self.scores(x)
        return scores


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, config: DoubleHeadConfig) -> None:
        super().__init__()
        width, conv, norm = config.conv_channels, config.conv, config.norm
        self.first = ConvNorm(width, width, 3, conv=conv, norm=norm, padding=1, relu=True)
        self.second = ConvNorm(width, width, 3, conv=conv, norm=norm, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, h, w) to the same shape."""
        return (x + self.second(self.first(x))).relu()


class BoxBranch(nn.Module):
    """Convolutions, average pooling, then deltas. It has basic residual blocks instead of the paper's bottlenecks."""

    def __init__(self, config: DoubleHeadConfig, inputs: RegionSpec, num_classes: int) -> None:
        super().__init__()
        width = config.conv_channels
        self.widen = ConvNorm(inputs.channels, width, 3, conv=config.conv, norm=config.norm, padding=1, relu=True)
        self.blocks = nn.Sequential(*(Residual(config) for _ in range(config.num_blocks)))
        self.deltas = nn.Linear(width, 4 * num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_init(module)
        normal_init(self.deltas, 0.001)

    def forward(self, regions: Tensor) -> Tensor:
        """(R, C, h, w) to deltas (R, K, 4)."""
        x = self.blocks(self.widen(regions)).mean((2, 3))
        deltas: Tensor = self.deltas(x)
        return deltas.unflatten(1, (-1, 4))
