"""Deformable convolution.

Letters: B images, C input and O output channels, G offset groups, kh kw kernel, H W input and h w output size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from det_ops import checks
from det_ops.checks import Pair
from det_ops.memory_format import empty_maps, match_format
from det_ops.reference import convolution as reference
from det_ops.reference.gradient import as_gradients
from det_ops.reference.precision import compute_dtype, full
from det_ops.registration import derivative, operator
from det_ops.torch_internals import torchvision_gradient


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

    Tap (i, j) of output pixel (p, q) reads x bilinearly at y = p * stride - padding + i * dilation + offset (and
    likewise along x), multiplied by its mask. Pixels outside the image count as 0. The gradient of an offset is 0 if
    its tap lies outside the image or exactly on the line one pixel around it (torchvision gives a one-sided slope
    there).

    Args:
        x: (B, C, H, W) floating point.
        offset: (B, G * kh * kw * 2, h, w): for each offset group and tap (y, x).
        weight: (O, C / groups, kh, kw) in the dtype of x.
        mask: (B, G * kh * kw, h, w), or None.
        bias: (O,), or None.
        stride, padding, dilation: an integer, or (y, x).
        groups: Groups of channels, as in an ordinary convolution.
        offset_groups: G, groups of input channels that share offsets.

    Returns:
        (B, O, h, w) in the dtype and memory format of x, differentiable in all five tensors.

    Raises:
        ValueError: for shapes that do not match, naming the expected one.
        TypeError: for an x that is not floating point, or a weight of another dtype outside autocast.
    """
    checks.check_convolution(x, weight, bias, groups)
    strides, paddings = checks.as_pair(stride, "stride", 1), checks.as_pair(padding, "padding", 0)
    dilations = checks.as_pair(dilation, "dilation", 1)
    if offset_groups < 1 or x.shape[1] % offset_groups:
        raise ValueError(f"offset_groups is {offset_groups}, expected a divisor of the {x.shape[1]} channels")
    kernel = weight.shape[2:]
    size = [(x.shape[2 + i] + 2 * paddings[i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in (0, 1)]
    if min(size) < 1:
        raise ValueError(f"x has size {tuple(x.shape[2:])}, too small for this kernel: the result would be empty")
    taps = offset_groups * kernel[0] * kernel[1]
    checks.check_shape(offset, "offset has", (x.shape[0], 2 * taps, *size))
    if mask is not None:
        checks.check_shape(mask, "mask has", (x.shape[0], taps, *size))
    return _deform_conv2d(x, offset, weight, mask, bias, strides, paddings, dilations, groups, offset_groups)


def convolution_flops(weight: Sequence[int], out: Sequence[int]) -> int:
    """The floating-point operations of weights (O, C / groups, kh, kw) at every position of the output (B, O, h, w)."""
    taps = weight[1] * weight[2] * weight[3]
    return 2 * taps * out[0] * out[1] * out[2] * out[3]


def _torchvision_accepts(x: Tensor, offset: Tensor) -> bool:
    """Whether torchvision can take these features and offsets (B, G * K * 2, h, w).

    On a CPU it crashes for offsets that are not finite. On a GPU it does not, and looking at the data would
    synchronise. It supports no other device and no empty input.
    """
    if x.device.type not in ("cpu", "cuda") or x.numel() == 0:
        return False
    return x.device.type == "cuda" or bool(torch.isfinite(offset).all())


def _torchvision(
    peer: Any, x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, bias: Tensor | None, *geometry: Any
) -> Tensor | None:
    if not _torchvision_accepts(x, offset):
        return None
    real = compute_dtype(x.dtype)
    inputs = [None if tensor is None else tensor.to(real) for tensor in (x, offset, weight, bias, mask)]
    stride, padding, dilation = (tuple(pair) for pair in geometry[:3])
    return match_format(peer.deform_conv2d(*inputs[:4], stride, padding, dilation, inputs[4]).to(x.dtype), x)


_deform_conv2d = operator(
    "deform_conv2d",
    reference.deform_conv2d,
    fake=lambda x, offset, weight, *_: empty_maps(x, (x.shape[0], weight.shape[0], *offset.shape[2:])),
    torchvision=_torchvision,
    autocast=("x", "weight", "bias"),
    flops=lambda x, offset, weight, *_, **__: convolution_flops(weight, (x[0], weight[0], *offset[-2:])),
)


def _torchvision_backward(
    peer: Any, grad: Tensor, x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, *geometry: Any
) -> tuple[Tensor, ...] | None:
    call = torchvision_gradient("deform_conv2d")
    if call is None or not _torchvision_accepts(x, offset):
        return None
    shift = full(offset)
    factor = grad.new_zeros((len(x), 1), dtype=shift.dtype) if mask is None else full(mask)
    tensors = full(grad), full(x), full(weight), shift, factor, full(weight).new_zeros(len(weight))
    stride, padding, dilation, groups, offset_groups = geometry
    options = *stride, *padding, *dilation, groups, offset_groups, mask is not None
    x_grad, weight_grad, offset_grad, mask_grad, _ = call(*(tensor.contiguous() for tensor in tensors), *options)
    # torchvision has a one-sided slope on the line around the image, where the gradient is defined as 0.
    kernel = weight.shape[2], weight.shape[3]
    inside = reference.taps_inside(x.shape[2:], shift, kernel, stride, padding, dilation, offset_groups)
    grads = x_grad, torch.where(inside, offset_grad, 0.0), weight_grad, mask_grad
    return tuple(as_gradients(grads, (x, offset, weight, mask)))


derivative(
    "deform_conv2d",
    of=("x", "offset", "weight", "mask"),
    omitted={"bias": lambda grad: None},
    sums={"bias": lambda grad: grad.sum((0, 2, 3))},
    torchvision=_torchvision_backward,
    # Twice the forward pass: the gradients of the samples and of the weights.
    flops=lambda grad, x, offset, weight, *_, **__: 2 * convolution_flops(weight, grad),
    unordered=True,
)
