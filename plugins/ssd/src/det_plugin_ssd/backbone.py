"""SSD's VGG-16 (Simonyan and Zisserman, 2015; Liu et al., SSD, 2016, section 3).

Letters: N images, H W input size, I channels of images, C of the first stage. Layers have the numbers of torchvision's
VGG-16.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from det_core.contracts import Backbone
from det_core.model.fold_batch_norm import conv_norm
from det_core.model.layers import init_convs, kaiming_init
from det_core.weights.initial_weights import load_initial
from det_plugin_ssd.config import VGGConfig

STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # width relative to the first stage, number of convolutions
CONV4_3, FC7 = 22, 34  # indices of their ReLUs


class VGG(Backbone):
    """Five stages, then fc6 (dilated) and fc7 as convolutions. Returns conv4_3 and fc7."""

    def __init__(self, config: VGGConfig) -> None:
        super().__init__()
        self.config = config
        self.out = config.feature_spec()
        layers: list[nn.Module] = []
        channels = config.in_channels
        for factor, count in STAGES:
            for _ in range(count):
                layers += self._layer(nn.Conv2d(channels, factor * config.channels, 3, padding=1))
                channels = factor * config.channels
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        layers[-1] = nn.MaxPool2d(3, stride=1, padding=1)  # pool5 keeps the size
        layers += self._layer(nn.Conv2d(channels, 2 * channels, 3, padding=6, dilation=6))
        layers += self._layer(nn.Conv2d(2 * channels, 2 * channels, 1))
        self.features = nn.Sequential(*layers)
        self.steps = _steps(layers)
        init_convs(self, kaiming_init)

    def _layer(self, conv: nn.Conv2d) -> list[nn.Module]:
        """A convolution with optional norm, and a ReLU. The two entries keep torchvision's numbering."""
        norm = self.config.norm
        if norm is None:
            return [conv, nn.ReLU(inplace=True)]
        return [nn.Sequential(conv, norm.build(conv.out_channels)), nn.ReLU(inplace=True)]

    def load_initial_weights(self) -> None:
        if self.config.pretrained is not None:
            fresh = ("features.31.", "features.33.")
            first = "features.0.weight" if self.config.norm is None else "features.0.0.weight"
            load_initial(self, self.config.pretrained, ignore=("classifier.",), fresh=fresh, first=first)

    def layers(self) -> list[tuple[str, ...]]:
        """A layer for each convolution."""
        return [(f"features.{n}",) for n, layer in enumerate(self.features) if any(True for _ in layer.parameters())]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, I, H, W) to conv4_3 (N, 8 C, H / 8, W / 8) and fc7 (N, 16 C, H / 16, W / 16), sides rounded up."""
        maps, x = [], images
        for number, relu in self.steps:
            layer = self.features[number]
            conv, norm = layer if isinstance(layer, nn.Sequential) else (layer, None)  # or pooling
            x = conv_norm(conv, norm, x, relu=relu)
            if number + relu in (CONV4_3, FC7):
                maps.append(x)
        return maps


def _steps(layers: Sequence[nn.Module]) -> list[tuple[int, bool]]:
    """Layer numbers in order of execution, and whether each is followed by a ReLU.

    A ReLU before pooling is applied after it, which gives the same result on fewer values. ReLUs of returned maps keep
    their place.
    """
    steps: list[tuple[int, bool]] = []
    for number, layer in enumerate(layers):
        relu_after = isinstance(layer, nn.MaxPool2d) and number - 1 not in (CONV4_3, FC7)
        if isinstance(layer, nn.ReLU):
            steps[-1] = (number - 1, True)
        else:
            if relu_after:
                steps[-1] = (steps[-1][0], False)
            steps.append((number, relu_after))
    return steps
