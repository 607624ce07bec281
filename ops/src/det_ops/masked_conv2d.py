"""Masked convolution.

Letters: B images, C input and O output channels, kh kw kernel, H W input and h w output size.
"""

from __future__ import annotations

from torch import Tensor

from det_ops import checks
from det_ops.checks import Pair
from det_ops.deform_conv2d import convolution_flops
from det_ops.memory_format import empty_maps
from det_ops.reference import convolution as reference
from det_ops.registration import operator


def masked_conv2d(x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None, padding: Pair = 0) -> Tensor:
    """A convolution computed only where a mask is positive (Wang et al., Guided Anchoring, 2019, section 3.5).

    Stride 1. For inference: the result has no gradient.

    Args:
        x: (B, C, H, W) floating point.
        mask: (B, h, w), positive where the result is needed.
        weight: (O, C, kh, kw) in the dtype of x.
        bias: (O,), or None.
        padding: an integer, or (y, x).

    Returns:
        (B, O, h, w): the convolution with bias where the mask is positive, else 0.

    Raises:
        ValueError: for shapes that do not match, naming the expected one.
        TypeError: for an x that is not floating point, or a weight of another dtype outside autocast.
    """
    checks.check_convolution(x, weight, bias, 1)
    paddings = checks.as_pair(padding, "padding", 0)
    expected = (x.shape[0], *(x.shape[2 + i] + 2 * paddings[i] - weight.shape[2 + i] + 1 for i in (0, 1)))
    if mask.shape != expected or min(expected[1:]) < 1:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, expected {expected} as (B, h, w)")
    return _masked_conv2d(x.detach(), mask, weight.detach(), None if bias is None else bias.detach(), paddings)


_masked_conv2d = operator(
    "masked_conv2d",
    reference.masked_conv2d,
    fake=lambda x, mask, weight, *_: empty_maps(x, (x.shape[0], weight.shape[0], *mask.shape[1:])),
    autocast=("x", "weight", "bias"),
    # An upper bound, as if the mask were positive everywhere: only shapes are known.
    flops=lambda x, mask, weight, *_, **__: convolution_flops(weight, (x[0], weight[0], *mask[-2:])),
)
