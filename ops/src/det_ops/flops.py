"""How many floating-point operations the convolutions here take, for `torch.utils.flop_counter`.

Letters: B images, C input and O output channels, kh kw kernel size, h w output size, G groups.
Counted as torch counts its own: two for every product that is summed, nothing for interpolation and other work on
single elements, so nothing for RoI pooling, suppression and the focal loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from det_ops import operators  # noqa: F401 - defines what is counted

Shape = tuple[int, ...]


def _convolution(weight: Shape, out: Shape) -> int:
    """Of weights (O, C / G, kh, kw) at every position of the output (B, O, h, w)."""
    taps = weight[1] * weight[2] * weight[3]
    return 2 * taps * out[0] * out[1] * out[2] * out[3]


@register_flop_formula(torch.ops.det.deform_conv2d)
def deform_conv2d_flops(x: Shape, offset: Shape, weight: Shape, *args: Any, **kwargs: Any) -> int:
    """A convolution; samples between pixels count nothing."""
    return _convolution(weight, (x[0], weight[0], *offset[-2:]))


@register_flop_formula(torch.ops.det.deform_conv2d_backward)
def deform_conv2d_backward_flops(grad: Shape, x: Shape, offset: Shape, weight: Shape, *args: Any, **kwargs: Any) -> int:
    """Twice the forward: the gradient of the samples and that of the weights."""
    return 2 * _convolution(weight, grad)


@register_flop_formula(torch.ops.det.masked_conv2d)
def masked_conv2d_flops(x: Shape, mask: Shape, weight: Shape, *args: Any, **kwargs: Any) -> int:
    """As if the mask were positive everywhere: an upper bound, as shapes say no more."""
    return _convolution(weight, (x[0], weight[0], *mask[-2:]))
