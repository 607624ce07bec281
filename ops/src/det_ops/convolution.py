"""Deformable and masked convolution.

Letters: B images, C input and O output channels, G offset groups, kh kw kernel, H W input and h w output size.
"""

from __future__ import annotations

import torch
from torch import Tensor

Pair = int | tuple[int, int]


def _pair(value: Pair, name: str, least: int) -> list[int]:
    pair = [value, value] if isinstance(value, int) else list(value)
    if len(pair) != 2 or min(pair) < least:
        raise ValueError(f"{name} is {value}, expected an integer or a pair of at least {least}")
    return pair


def _check_conv(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    if x.dim() != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, C, H, W)")
    if weight.dim() != 4 or weight.shape[1] * groups != x.shape[1] or weight.shape[0] % groups:
        expected = f"(O, {x.shape[1]} / {groups}, kh, kw) with O a multiple of {groups}"
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected {expected}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}, expected ({weight.shape[0]},)")
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}, expected a floating point one")
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"x has dtype {x.dtype} and weight {weight.dtype}, expected the same (or use autocast)")


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    offset_groups: int = 1,
) -> Tensor:
    """Deformable convolution (Dai et al., 2017, section 2.1); with a mask its modulated form (Zhu et al., 2019).

    Tap (i, j) of output pixel (p, q) reads x bilinearly at y = p * stride - padding + i * dilation + offset (x
    alike), pixels outside the image counting 0, times its mask. The gradient of an offset is 0 where its tap lies
    outside the image or exactly on the line one pixel around it (torchvision gives a one-sided slope there).

    Args:
        x: (B, C, H, W) floating point.
        offset: (B, G * kh * kw * 2, h, w): for each offset group and tap (y, x).
        weight: (O, C / groups, kh, kw) in the dtype of x.
        mask: (B, G * kh * kw, h, w), or None.
        bias: (O,), or None.
        stride, padding, dilation: an integer, or (y, x).
        groups: of the channels, as in an ordinary convolution.
        offset_groups: G, groups of input channels that share offsets.

    Returns:
        (B, O, h, w) in the dtype and memory format of x, differentiable in all five tensors.

    Raises:
        ValueError: for shapes that do not fit, naming the expected one.
        TypeError: for an x that is not floating point, or a weight of another dtype outside autocast.
    """
    _check_conv(x, weight, bias, groups)
    strides, paddings = _pair(stride, "stride", 1), _pair(padding, "padding", 0)
    dilations = _pair(dilation, "dilation", 1)
    if offset_groups < 1 or x.shape[1] % offset_groups:
        raise ValueError(f"offset_groups is {offset_groups}, expected a divisor of the {x.shape[1]} channels")
    kernel = (weight.shape[2], weight.shape[3])
    size = [(x.shape[2 + i] + 2 * paddings[i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in (0, 1)]
    if min(size) < 1:
        raise ValueError(f"x has size {tuple(x.shape[2:])}, too small for this kernel: the result would be empty")
    taps = offset_groups * kernel[0] * kernel[1]
    for name, tensor, channels in (("offset", offset, 2 * taps), ("mask", mask, taps)):
        expected = (x.shape[0], channels, *size)
        if tensor is not None and tensor.shape != expected:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}")
    result: Tensor = torch.ops.det.deform_conv2d(
        x, offset, weight, mask, bias, strides, paddings, dilations, groups, offset_groups
    )
    return result


def masked_conv2d(x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None, padding: Pair = 0) -> Tensor:
    """A convolution computed only where a mask is positive (Wang et al., Guided Anchoring, 2019, section 3.5).

    Stride 1. For inference: without gradient.

    Args:
        x: (B, C, H, W) floating point.
        mask: (B, h, w), positive where the result is wanted.
        weight: (O, C, kh, kw) in the dtype of x.
        bias: (O,), or None.
        padding: an integer, or (y, x).

    Returns:
        (B, O, h, w): the convolution with bias where the mask is positive, else 0.

    Raises:
        ValueError: for shapes that do not fit, naming the expected one.
        TypeError: for an x that is not floating point, or a weight of another dtype outside autocast.
    """
    _check_conv(x, weight, bias, 1)
    paddings = _pair(padding, "padding", 0)
    expected = (x.shape[0], *(x.shape[2 + i] + 2 * paddings[i] - weight.shape[2 + i] + 1 for i in (0, 1)))
    if mask.shape != expected or min(expected[1:]) < 1:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, expected {expected} as (B, h, w)")
    inputs = [t if t is None else t.detach() for t in (weight, bias)]
    result: Tensor = torch.ops.det.masked_conv2d(x.detach(), mask, *inputs, paddings)
    return result
