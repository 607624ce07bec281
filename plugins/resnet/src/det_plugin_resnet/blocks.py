"""Residual blocks and stages (He et al., Deep Residual Learning, 2016, table 1; Xie et al., ResNeXt, 2017).

Letters: C channels. Layers have torchvision's names.
"""

from __future__ import annotations

from torch import Tensor, nn

from det_core.model.fold_batch_norm import conv_norm
from det_core.model.layers import kaiming_init
from det_core.slots import ConvConfig, NormConfig
from det_core.specs import ConvSpec
from det_plugin_resnet.config import STAGE_BLOCKS, STAGE_PLANES, BlockSettings, expansion


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(
        self, channels: int, planes: int, stride: int, settings: BlockSettings, spatial: ConvConfig, dilation: int = 1
    ) -> None:
        super().__init__()
        conv, norm = settings.conv, settings.norm
        around = {"padding": dilation, "dilation": dilation}
        self.conv1 = spatial.build(ConvSpec(channels, planes, 3, stride=stride, bias=False, **around))
        self.bn1 = norm.build(planes)
        self.conv2 = spatial.build(ConvSpec(planes, planes, 3, bias=False, **around))
        self.bn2 = norm.build(planes)
        self.downsample = _shortcut(channels, planes, stride, conv, norm)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        out = conv_norm(self.conv1, self.bn1, x, relu=True)
        shortcut = x if self.downsample is None else conv_norm(self.downsample[0], self.downsample[1], x)
        return conv_norm(self.conv2, self.bn2, out, add=shortcut, relu=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped in ResNeXt) and 1x1 convolutions, and a shortcut."""

    def __init__(
        self, channels: int, planes: int, stride: int, settings: BlockSettings, spatial: ConvConfig, dilation: int = 1
    ) -> None:
        super().__init__()
        conv, norm, out = settings.conv, settings.norm, planes * expansion(settings.depth)
        width = planes * settings.base_width // 64 * settings.groups
        first, second = (1, stride) if settings.style == "pytorch" else (stride, 1)
        self.conv1 = conv.build(ConvSpec(channels, width, 1, stride=first, bias=False))
        self.bn1 = norm.build(width)
        around = {"padding": dilation, "dilation": dilation, "groups": settings.groups}
        self.conv2 = spatial.build(ConvSpec(width, width, 3, stride=second, bias=False, **around))
        self.bn2 = norm.build(width)
        self.conv3 = conv.build(ConvSpec(width, out, 1, bias=False))
        self.bn3 = norm.build(out)
        self.downsample = _shortcut(channels, out, stride, conv, norm)

    @property
    def last_norm(self) -> nn.Module:
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        out = conv_norm(self.conv1, self.bn1, x, relu=True)
        out = conv_norm(self.conv2, self.bn2, out, relu=True)
        shortcut = x if self.downsample is None else conv_norm(self.downsample[0], self.downsample[1], x)
        return conv_norm(self.conv3, self.bn3, out, add=shortcut, relu=True)


def _shortcut(channels: int, out: int, stride: int, conv: ConvConfig, norm: NormConfig) -> nn.Sequential | None:
    """A 1x1 convolution and norm if the size or the channels change, else None."""
    if stride == 1 and channels == out:
        return None
    return nn.Sequential(conv.build(ConvSpec(channels, out, 1, stride=stride, bias=False)), norm.build(out))


def make_stage(number: int, stride: int, settings: BlockSettings, dilation: int = 1) -> nn.Sequential:
    """Stage 1..4 of a ResNet. `stride` is that of its first block, `dilation` that of its 3x3 convolutions."""
    block = Bottleneck if expansion(settings.depth) == 4 else BasicBlock
    planes = STAGE_PLANES[number - 1]
    channels = 64 if number == 1 else STAGE_PLANES[number - 2] * expansion(settings.depth)
    layers = []
    for i in range(STAGE_BLOCKS[settings.depth][number - 1]):
        first = stride if i == 0 else 1
        layers.append(block(channels, planes, first, settings, settings.spatial(number), dilation))
        channels = planes * expansion(settings.depth)
    return nn.Sequential(*layers)


def initialise(module: nn.Module, zero_residual: bool) -> None:
    """Initialise all blocks of a module. With zero_residual, the last norm of each block has weight 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            kaiming_init(part)
        elif isinstance(part, (BasicBlock, Bottleneck)) and zero_residual:
            nn.init.zeros_(part.last_norm.weight)  # type: ignore[arg-type]
