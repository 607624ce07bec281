"""FPN (Lin et al., Feature Pyramid Networks, 2017, section 3).

Letters: N images, C channels, H W size of a level.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from det_core.contracts import Neck
from det_core.model.layers import ConvNorm, init_convs, xavier_init
from det_core.specs import FeatureSpec
from det_plugin_fpn.config import FPNConfig


class FPN(Neck):
    """Lateral 1x1 convolutions, nearest-neighbour top-down sums, 3x3 output convolutions, and extra coarse levels.

    Extra levels by convolution follow RetinaNet (Lin et al., Focal Loss, 2017, section 4).
    """

    def __init__(self, config: FPNConfig, inputs: FeatureSpec) -> None:
        super().__init__()
        self.config = config
        self.out = config.feature_spec(inputs)
        width, used = config.channels, inputs.channels[config.start :]
        self.lateral = nn.ModuleList(ConvNorm(c, width, 1, conv=config.conv, norm=config.norm) for c in used)
        self.output = nn.ModuleList(
            ConvNorm(width, width, 3, padding=1, conv=config.conv, norm=config.norm) for _ in used
        )
        self.extra = nn.ModuleDict()  # keys are level numbers
        channels = inputs.channels[-1] if config.extra == "conv_input" else width
        for number in range(len(used), config.levels if config.extra != "max_pool" else 0):
            self.extra[str(number)] = ConvNorm(
                channels, width, 3, stride=2, padding=1, conv=config.conv, norm=config.norm
            )
            channels = width
        init_convs(self, xavier_init)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Input maps to `levels` maps (N, channels, H, W), finest first."""
        inputs = list(zip(self.lateral, features[self.config.start :], strict=True))
        merged: list[Tensor] = []  # coarsest first
        for conv, x in reversed(inputs):
            above = F.interpolate(merged[-1], size=x.shape[-2:], mode="nearest") if merged else None
            merged.append(conv(x, above))
        maps = [conv(x) for conv, x in zip(self.output, reversed(merged), strict=True)]
        while len(maps) < self.config.levels:
            maps.append(self._next(features, maps))
        return maps

    def _next(self, features: Sequence[Tensor], maps: Sequence[Tensor]) -> Tensor:
        """The extra level after `maps`."""
        if self.config.extra == "max_pool":
            return F.max_pool2d(maps[-1], 1, stride=2)
        first = len(maps) == len(self.output)
        if first:
            x = features[-1] if self.config.extra == "conv_input" else maps[-1]
        else:
            x = maps[-1].relu() if self.config.extra_relu else maps[-1]
        result: Tensor = self.extra[str(len(maps))](x)
        return result
