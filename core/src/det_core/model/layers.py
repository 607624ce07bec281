"""Layers and helpers that many parts use: convolution with norm and ReLU, towers, weight initialisation, RoIs.

Letters: N images, C channels, H W size, R RoIs, n boxes of one image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from det_core.boxes.device_copies import send
from det_core.model.fold_batch_norm import conv_norm
from det_core.slots import ConvConfig, NormConfig
from det_core.specs import ConvSpec


class ConvNorm(nn.Module):
    """Convolution, optional norm, optional ReLU. A convolution followed by a norm has no bias."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        conv: ConvConfig,
        norm: NormConfig | None = None,
        stride: int = 1,
        padding: int = 0,
        relu: bool = False,
    ) -> None:
        super().__init__()
        self.conv = conv.build(
            ConvSpec(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=norm is None)
        )
        self.norm = None if norm is None else norm.build(out_channels)
        self.relu = relu

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W'). `add`, of the output's shape, is added before the ReLU."""
        return conv_norm(self.conv, self.norm, x, add=add, relu=self.relu)


def tower(channels: int, width: int, count: int, *, conv: ConvConfig, norm: NormConfig | None) -> nn.Sequential:
    """`count` 3x3 convolutions with optional norm and ReLU: (N, channels, H, W) to (N, width, H, W)."""
    inputs = [channels, *[width] * (count - 1)][:count]
    return nn.Sequential(*(ConvNorm(c, width, 3, padding=1, conv=conv, norm=norm, relu=True) for c in inputs))


def normal_init(module: nn.Module, std: float, bias: float = 0.0) -> None:
    """Initialise weights from N(0, std^2) and the bias with a constant, in place."""
    nn.init.normal_(module.weight, std=std)  # type: ignore[arg-type]
    if isinstance(module.bias, Tensor):
        nn.init.constant_(module.bias, bias)


def prior_bias(prior: float) -> float:
    """The bias for which the sigmoid of a zero input is `prior` (Lin et al., Focal Loss, 2017, section 4.1)."""
    return -math.log((1 - prior) / prior)


def xavier_init(module: nn.Module) -> None:
    """Initialise Xavier-uniform weights (Glorot and Bengio, 2010) and a zero bias, in place."""
    nn.init.xavier_uniform_(module.weight)  # type: ignore[arg-type]
    if isinstance(module.bias, Tensor):
        nn.init.zeros_(module.bias)


def kaiming_init(module: nn.Module) -> None:
    """Initialise Kaiming-normal weights (ReLU, fan-out; He et al., 2015) and a zero bias, in place."""
    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
    if isinstance(module.bias, Tensor):
        nn.init.zeros_(module.bias)


def init_convs(module: nn.Module, init: Callable[[nn.Module], None]) -> None:
    """Initialise every `nn.Conv2d` in a module, in place."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            init(part)


def to_rois(boxes: list[Tensor]) -> Tensor:
    """(R, 5) rois (image index, x1, y1, x2, y2) from the boxes (n, 4) of each image, in order."""
    everywhere = torch.cat(boxes)
    index = torch.from_numpy(np.repeat(np.arange(len(boxes)), [len(b) for b in boxes])).to(everywhere.dtype)
    return torch.cat([send(index, everywhere.device)[:, None], everywhere], 1)
