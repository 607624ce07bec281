"""ResNet (He et al., Deep Residual Learning, 2016), table 1. Names of layers are torchvision's.

Letters: N images, H W input size, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from det_core.config.base import ConvConfig, NormConfig
from det_core.model.contracts import Backbone
from det_core.model.layers import kaiming_init
from det_core.weights import load_initial
from det_plugin_resnet.config import STAGE_BLOCKS, STAGE_PLANES, ResNetConfig


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels: int, planes: int, stride: int, config: ResNetConfig) -> None:
        super().__init__()
        conv, norm = config.conv, config.norm
        self.conv1 = conv.build(channels, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = norm.build(planes)
        self.conv2 = conv.build(planes, planes, 3, padding=1, bias=False)
        self.bn2 = norm.build(planes)
        self.downsample = _shortcut(channels, planes, stride, conv, norm)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu_()
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return out.relu_()


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut."""

    def __init__(self, channels: int, planes: int, stride: int, config: ResNetConfig) -> None:
        super().__init__()
        conv, norm, out = config.conv, config.norm, planes * config.expansion
        first, second = (1, stride) if config.style == "pytorch" else (stride, 1)
        self.conv1 = conv.build(channels, planes, 1, stride=first, bias=False)
        self.bn1 = norm.build(planes)
        self.conv2 = conv.build(planes, planes, 3, stride=second, padding=1, bias=False)
        self.bn2 = norm.build(planes)
        self.conv3 = conv.build(planes, out, 1, bias=False)
        self.bn3 = norm.build(out)
        self.downsample = _shortcut(channels, out, stride, conv, norm)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu_()
        out = self.bn2(self.conv2(out)).relu_()
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return out.relu_()


def _shortcut(channels: int, out: int, stride: int, conv: ConvConfig, norm: NormConfig) -> nn.Sequential | None:
    """A 1x1 convolution where size or channels change, else nothing."""
    if stride == 1 and channels == out:
        return None
    return nn.Sequential(conv.build(channels, out, 1, stride=stride, bias=False), norm.build(out))


class ResNet(Backbone):
    """Stem and up to four stages; hands on the outputs of the stages that the configuration names."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.out = config.feature_spec()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = config.norm.build(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        block = Bottleneck if config.expansion == 4 else BasicBlock
        channels = 64
        for stage in range(1, max(config.stages) + 1):
            planes, layers = STAGE_PLANES[stage - 1], []
            for i in range(STAGE_BLOCKS[config.depth][stage - 1]):
                layers.append(block(channels, planes, 2 if i == 0 and stage > 1 else 1, config))
                channels = planes * config.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self._initialise()
        self._freeze()

    def stage(self, number: int) -> nn.Module:
        """Stage 1..4, as `layer<number>`."""
        return self.get_submodule(f"layer{number}")

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                kaiming_init(module)
            elif isinstance(module, (BasicBlock, Bottleneck)) and self.config.zero_init_residual:
                nn.init.zeros_(module.last_norm.weight)  # type: ignore[arg-type]

    def _frozen(self) -> list[nn.Module]:
        """The modules that do not train."""
        if self.config.frozen_stages < 0:
            return []
        built = range(1, min(self.config.frozen_stages, max(self.config.stages)) + 1)
        return [self.conv1, self.bn1, *(self.stage(n) for n in built)]

    def _freeze(self) -> None:
        for module in self._frozen():
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> ResNet:
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def load_initial_weights(self) -> None:
        if self.config.pretrained is not None:
            load_initial(self, self.config.pretrained)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) to one map per named stage, (N, C, H / stride, W / stride)."""
        x = self.maxpool(self.bn1(self.conv1(images)).relu_())
        maps = []
        for number in range(1, max(self.config.stages) + 1):
            x = self.stage(number)(x)
            if number in self.config.stages:
                maps.append(x)
        return maps
