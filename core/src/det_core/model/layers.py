"""Layers that many parts use: batch norm that can keep its statistics, convolution with norm and activation.

Letters: N images, C channels, H W size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from det_core.config.base import ConvConfig, NormConfig


class BatchNorm(nn.BatchNorm2d):
    """torch's batch norm; with `frozen_statistics` it normalises with its running statistics in training too."""

    def __init__(self, channels: int, *, eps: float = 1e-5, frozen_statistics: bool = False) -> None:
        super().__init__(channels, eps=eps)
        self.frozen_statistics = frozen_statistics
        self.train()  # a fresh module is in training mode, frozen statistics never are

    def train(self, mode: bool = True) -> BatchNorm:
        super().train(mode and not self.frozen_statistics)
        return self

    def fixed_affine(self) -> tuple[Tensor, Tensor] | None:
        """(C,) scale and (C,) shift that this norm amounts to; None where it looks at a batch's own statistics."""
        if self.training or self.running_var is None or self.running_mean is None or self.weight.dtype.itemsize < 4:
            return None
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


def conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(conv(x)), as a single convolution where the norm is a fixed scale and shift.

    Scaling the weights costs next to nothing beside a pass over the output (and its copy for the gradient), which is
    what a norm of its own costs; gradients reach weights, scale and shift as before. A convolution of another kind, a
    norm that follows the batch, and modules that somebody watches with hooks are called one after the other.
    """
    if type(conv) is nn.Conv2d and isinstance(norm, BatchNorm) and not (_watched(conv) or _watched(norm)):
        affine = norm.fixed_affine()
        if affine is not None and conv.bias is None and conv.padding_mode == "zeros":
            scale, shift = affine
            weight = conv.weight * scale[:, None, None, None]
            return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)
    result: Tensor = norm(conv(x))
    return result


def _watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


class ConvNorm(nn.Module):
    """Convolution, norm if any, ReLU if asked. A convolution before a norm has no bias."""

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
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=norm is None
        )
        self.norm = None if norm is None else norm.build(out_channels)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        x = self.conv(x) if self.norm is None else conv_norm(self.conv, self.norm, x)
        return x.relu_() if self.relu else x


def tower(channels: int, width: int, count: int, *, conv: ConvConfig, norm: NormConfig | None) -> nn.Sequential:
    """`count` 3x3 convolutions with norm, if any, and ReLU: (N, channels, H, W) to (N, width, H, W)."""
    inputs = [channels, *[width] * (count - 1)][:count]
    return nn.Sequential(*(ConvNorm(c, width, 3, padding=1, conv=conv, norm=norm, relu=True) for c in inputs))


def normal_init(module: nn.Module, std: float, bias: float = 0.0) -> None:
    """Weights N(0, std^2) and a constant bias, in place."""
    nn.init.normal_(module.weight, std=std)  # type: ignore[arg-type]
    if isinstance(module.bias, Tensor):
        nn.init.constant_(module.bias, bias)


def xavier_init(module: nn.Module) -> None:
    """Xavier-uniform weights (Glorot and Bengio, 2010) and a zero bias, in place."""
    nn.init.xavier_uniform_(module.weight)  # type: ignore[arg-type]
    if isinstance(module.bias, Tensor):
        nn.init.zeros_(module.bias)


def kaiming_init(module: nn.Module) -> None:
    """Kaiming-normal weights for ReLU over the fan-out (He et al., 2015) and a zero bias, in place."""
    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
    if isinstance(module.bias, Tensor):
        nn.init.zeros_(module.bias)


def to_rois(boxes: list[Tensor]) -> Tensor:
    """(R, 5) rois (image index, x1, y1, x2, y2) from the boxes (n, 4) of each image, in order."""
    index = torch.cat([b.new_full((len(b), 1), i) for i, b in enumerate(boxes)])
    return torch.cat([index, torch.cat(boxes)], 1)
