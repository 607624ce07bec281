"""Deformable and masked convolution.

Letters: B images, C input channels, O output channels, G offset groups, K kernel taps, H W input and h w output size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from det_ops.memory_format import match_format
from det_ops.reference.precision import compute_dtype


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
) -> Tensor:
    """(B, O, h, w); see `det_ops.deform_conv2d`. The columns (C, K, h, w) of one image are stored at a time."""
    real = compute_dtype(x.dtype)
    kernel = (weight.shape[2], weight.shape[3])
    taps, size = kernel[0] * kernel[1], (offset.shape[2], offset.shape[3])
    y, x_at = _base(kernel, size, stride, padding, dilation, real, x.device)
    filters = weight.to(real).flatten(2).unflatten(0, (groups, -1)).flatten(2)  # (groups, O / groups, C / groups * K)
    out = [x.new_zeros((0, weight.shape[0], *size), dtype=real)]
    for image, shift, factor in zip(x, offset, mask if mask is not None else [None] * len(x), strict=True):
        shift = shift.to(real).unflatten(0, (offset_groups, taps, 2))
        value = _sample(image.to(real).unflatten(0, (offset_groups, -1)), y + shift[:, :, 0], x_at + shift[:, :, 1])
        if factor is not None:
            value = value * factor.to(real).unflatten(0, (offset_groups, taps))[:, None]
        columns = (
            value.flatten(0, 1).unflatten(0, (groups, -1)).flatten(1, 2).flatten(2)
        )  # (groups, C / groups * K, h * w)
        out.append((filters @ columns).flatten(0, 1).unflatten(1, size)[None])
    result = torch.cat(out)
    if bias is not None:
        result = result + bias.to(real)[:, None, None]
    return match_format(result.to(x.dtype), x)


def _base(
    kernel: tuple[int, int],
    size: tuple[int, int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """y (K, h, 1) and x (K, 1, w) of each tap without its offset."""
    rows, columns = (
        (torch.arange(size[i], device=device) * stride[i] - padding[i])[None]
        + (torch.arange(kernel[i], device=device) * dilation[i])[:, None]
        for i in (0, 1)
    )
    y = rows.to(dtype).repeat_interleave(kernel[1], 0)[:, :, None]
    x = columns.to(dtype).repeat(kernel[0], 1)[:, None, :]
    return y, x


def taps_inside(
    image_size: Sequence[int],
    offset: Tensor,
    kernel: tuple[int, int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    offset_groups: int,
) -> Tensor:
    """(B, G * K * 2, h, w) bool, twice for each tap of offset (B, G * K * 2, h, w): within one pixel of the image."""
    taps, size = kernel[0] * kernel[1], (offset.shape[2], offset.shape[3])
    base_y, base_x = _base(kernel, size, stride, padding, dilation, offset.dtype, offset.device)
    shift = offset.unflatten(1, (offset_groups, taps, 2))
    y, x = base_y + shift[:, :, :, 0], base_x + shift[:, :, :, 1]
    inside = (y > -1) & (y < image_size[0]) & (x > -1) & (x < image_size[1])
    return inside[:, :, :, None].expand_as(shift).flatten(1, 3)


def _sample(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """(G, C / G, K, h, w) of an image (G, C / G, H, W) at y and x (G, K, h, w); 0 outside and on the line around it."""
    height, width = image.shape[-2:]
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x = torch.where(inside, y, torch.zeros_like(y)), torch.where(inside, x, torch.zeros_like(x))
    y_low, x_low = y.detach().floor(), x.detach().floor()
    fy, fx = y - y_low, x - x_low
    group = torch.arange(len(image), device=image.device)[:, None, None, None]
    maps = image.permute(0, 2, 3, 1)  # (G, H, W, C / G)
    total = maps.new_zeros(())
    for row, row_weight in ((y_low, 1 - fy), (y_low + 1, fy)):
        for column, column_weight in ((x_low, 1 - fx), (x_low + 1, fx)):
            known = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            values = maps[group, row.clamp(0, height - 1).long(), column.clamp(0, width - 1).long()]
            weighted = values * (row_weight * column_weight)[..., None]
            total = total + torch.where(known[..., None], weighted, maps.new_zeros(()))
    return total.permute(0, 4, 1, 2, 3)


def masked_conv2d(x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int]) -> Tensor:
    """(B, O, h, w), 0 where mask (B, h, w) is not positive; see `det_ops.masked_conv2d`."""
    real = compute_dtype(x.dtype)
    if x.shape[1] == 0:  # without input channels, torch's convolution has no output channels
        x, weight = F.pad(x, (0, 0, 0, 0, 0, 1)), F.pad(weight, (0, 0, 0, 0, 0, 1))
    result = F.conv2d(x.to(real), weight.to(real), None if bias is None else bias.to(real), padding=list(padding))
    return match_format(torch.where((mask > 0)[:, None], result, result.new_zeros(())).to(x.dtype), x)
