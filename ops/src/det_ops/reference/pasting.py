"""Masks of regions pasted into the image, in plain PyTorch: the definition of `det_ops.paste_masks`.

Letters: n masks, S side of a mask, h w image size. A mask is surrounded by zeros, and a pixel reads four neighbouring
values of it. Each operation rounds on its own: `grid_sample` and `interpolate`, which compute the same, use fused
multiply-adds on some CPUs, and differ by the last bit between them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from det_ops.reference.masks import encode
from det_ops.reference.precision import full

BORDER = 2  # zeros on each side of a mask
FAR = float(1 << 40)  # pixels; corners beyond are moved here


class Axis(NamedTuple):
    """Along one axis, p pixels of the image from `start`: the first of the two values that each reads, their weights.

    first: (p,) int64, in the mask with its border. low, high: (p,).
    """

    start: int
    first: Tensor
    low: Tensor
    high: Tensor


def paste_masks(
    masks: Tensor, boxes: Tensor, mirrored: Tensor | None, height: int, width: int, threshold: float, rule: str
) -> Tensor:
    """(n, h, w) bool; see `det_ops.paste_masks`."""
    out = torch.zeros((len(masks), height, width), dtype=torch.bool, device=masks.device)
    dtype = torch.promote_types(full(masks).dtype, full(boxes).dtype)
    masks, boxes, side = masks.to(dtype), boxes.to(dtype), masks.shape[-1]
    axis_of = {"sampled": _sampled_axis, "resized": _resized_axis, "quantised": _quantised_axis}[rule]
    if rule == "resized":
        middle, half = (boxes[:, :2] + boxes[:, 2:]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * (0.5 * ((side + 2) / side))
        boxes = torch.cat([middle - half, middle + half], 1)
    padded = F.pad(masks, (BORDER,) * 4)
    for i in boxes.isfinite().all(1).nonzero().flatten().tolist():
        x1, y1, x2, y2 = boxes[i].unbind()
        if rule == "sampled" and not (x2 > x1 and y2 > y1):
            continue
        x, y = axis_of(x1, x2, width, side), axis_of(y1, y2, height, side)
        value = _value(padded[i], x, y, rule)
        found = value >= threshold if rule == "sampled" else value > threshold
        out[i, y.start : y.start + len(y.low), x.start : x.start + len(x.low)] = found
    return out if mirrored is None else torch.where(mirrored[:, None, None], out.flip(2), out)


def paste_mask_codes(
    masks: Tensor, boxes: Tensor, mirrored: Tensor | None, height: int, width: int, threshold: float, rule: str
) -> tuple[Tensor, Tensor]:
    """Codes (c,) uint8 and offsets (n + 1,) int64; see `det_ops.paste_mask_codes`."""
    codes = []
    for i in range(len(masks)):
        flip = None if mirrored is None else mirrored[i : i + 1]
        bitmap = paste_masks(masks[i : i + 1], boxes[i : i + 1], flip, height, width, threshold, rule)[0]
        codes.append(encode(bitmap))
    lengths = torch.tensor([0, *map(len, codes)], device=masks.device)
    return torch.cat([lengths.new_zeros(0, dtype=torch.uint8), *codes]), lengths.cumsum(0)


def _value(padded: Tensor, x: Axis, y: Axis, rule: str) -> Tensor:
    """The interpolated values of the pixels of both axes, from a mask (S + 4, S + 4) with its border."""
    upper, lower = (
        (rows[:, x.first], rows[:, x.first + 1]) for rows in (padded[y.first], padded[y.first + 1])
    )  # each: what pixels read at the left and at the right
    y_low, y_high = y.low[:, None], y.high[:, None]
    if rule == "sampled":
        above = upper[0] * (x.low * y_low) + upper[1] * (x.high * y_low)
        return above + lower[0] * (x.low * y_high) + lower[1] * (x.high * y_high)
    above, below = (row[0] * x.low + row[1] * x.high for row in (upper, lower))
    return above * y_low + below * y_high


def _sampled_axis(low: Tensor, high: Tensor, size: int, side: int) -> Axis:
    """Sampled bilinearly at pixel centres, in the arithmetic of `grid_sample`."""
    start, end = (min(int(edge.clamp(0, size)), size) for edge in (low.floor() - 1, high.ceil() + 1))
    centre = torch.arange(start, end, dtype=low.dtype, device=low.device) + 0.5
    grid = (centre - low) / (high - low) * 2 - 1
    position = (grid + 1) * (side / 2) - 0.5
    finite = position.isfinite()  # those in the middle
    before = int((position == -torch.inf).sum())
    position = position[finite]
    first = position.floor()
    weight = position - first
    return Axis(start + before, first.clamp(-BORDER, side).long() + BORDER, 1 - weight, weight)


def _resized_axis(low: Tensor, high: Tensor, size: int, side: int) -> Axis:
    """Resized with one zero on each side to whole pixels, both inclusive, in the arithmetic of `interpolate`."""
    first_pixel, last_pixel = int(low.clamp(-FAR, FAR)), int(high.clamp(-FAR, FAR))
    start, end = max(first_pixel, 0), min(last_pixel + 1, size)
    pixel = torch.arange(start - first_pixel, max(end, start) - first_pixel, device=low.device).to(low.dtype)
    cells = low.new_tensor(max(last_pixel - first_pixel + 1, 1))
    position = ((low.new_tensor(side + 2) / cells) * (pixel + 0.5) - 0.5).clamp(min=0)
    first = position.floor().clamp(max=side + 1)
    weight = position - first
    return Axis(start, first.long() + BORDER - 1, 1 - weight, weight)


def _quantised_axis(low: Tensor, high: Tensor, size: int, side: int) -> Axis:
    """Resized to whole pixels, from the first to the last of the box, in the arithmetic of OpenCV."""
    first_pixel, last_pixel = int(low.clamp(-FAR, FAR)), int((high - 1).clamp(-FAR, FAR))
    last_pixel = max(last_pixel, first_pixel)
    start, end = max(first_pixel, 0), min(last_pixel + 1, size)
    pixel = torch.arange(start - first_pixel, max(end, start) - first_pixel, device=low.device).to(low.dtype)
    ratio = low.new_tensor(side) / low.new_tensor(last_pixel - first_pixel + 1)
    position = (ratio * (pixel + 0.5) - 0.5).clamp(0, side - 1)
    first = position.floor()
    weight = position - first
    return Axis(start, first.long() + BORDER, 1 - weight, weight)
