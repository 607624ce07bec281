"""A plain backbone: 3x3 convolutions with a norm and a ReLU.

Letters: N images, H W input size, C channels.
"""

from __future__ import annotations

from det_core.contracts import Backbone
from det_core.model.layer_config import Conv2dConfig
from det_core.model.layers import ConvNorm, kaiming_init
from torch import Tensor, nn

from det_plugin_double_head.config import PlainNetConfig


def _stage(channels: int, width: int, config: PlainNetConfig) -> nn.Sequential:
    """`depth` convolutions. The first one halves the size and changes the channels."""
    layers = []
    for i in range(config.depth):
        stride = 2 if i == 0 else 1
        layers.append(
            ConvNorm(
                width if i else channels,
                width,
                3,
                conv=config.conv,
                norm=config.norm,
                stride=stride,
                padding=1,
                relu=True,
            )
        )
    return nn.Sequential(*layers)


class PlainNet(Backbone):
    """A stem at stride 2, then four stages that halve the size. Returns the outputs of all stages."""

    def __init__(self, config: PlainNetConfig) -> None:
        super().__init__()
        self.out = config.feature_spec()
        channels = config.width
        self.stem = ConvNorm(3, channels, 3, conv=Conv2dConfig(), norm=config.norm, stride=2, padding=1, relu=True)
        self.stages = nn.ModuleList()
        for width in self.out.channels:
            self.stages.append(_stage(channels, width, config))
            channels = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_init(module)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to four maps (N, C_l, H / stride_l, W / stride_l), finest first."""
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
