"""Bilinear resizing of 8-bit images, in plain PyTorch: the definition of `det_ops.resize_bilinear`.

The fixed-point arithmetic is that of OpenCV's 8-bit bilinear resize: weights of 11 bits, the horizontal sum shifted
right by 4 bits, each vertical product by 16, rounded once at the end. Floating point with one rounding differs by one
level in every tenth pixel. Letters: P planes, C channels, H W old size, h w new size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

WEIGHT_ONE = 2048  # 11 bits


def resize_bilinear(
    image: Tensor,
    height: int,
    width: int,
    flip_x: bool,
    flip_y: bool,
    fixed_point: bool,
    canvas: Sequence[int],
    fill: Sequence[int],
) -> Tensor:
    """image (P, H, W, C) uint8 to (P, h, w, C) uint8, or float32 without `fixed_point`; then mirrored.

    canvas: empty, or the height and width of a canvas, and top and left of the image on it. fill: P * C colours of it.
    """
    if canvas:
        image = _on_canvas(image, canvas, fill)
    resized = _fixed_point(image, height, width) if fixed_point else _floating(image, height, width)
    mirrored = [axis for axis, flip in ((2, flip_x), (1, flip_y)) if flip]
    return resized.flip(mirrored) if mirrored else resized


def _on_canvas(image: Tensor, canvas: Sequence[int], fill: Sequence[int]) -> Tensor:
    height, width, top, left = canvas
    planes, rows, columns, channels = image.shape
    colour = torch.tensor(fill, dtype=image.dtype, device=image.device).reshape(planes, 1, 1, channels)
    drawn = colour.repeat(1, height, width, 1)
    drawn[:, top : top + rows, left : left + columns] = image
    return drawn


def _floating(image: Tensor, height: int, width: int) -> Tensor:
    planes = image.permute(0, 3, 1, 2).float()
    resized = F.interpolate(planes, (height, width), mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1).contiguous()


def _fixed_point(image: Tensor, height: int, width: int) -> Tensor:
    left, right, left_weight, right_weight = (
        x.to(image.device) for x in _taps(width, image.shape[2], edge_takes_all=True)
    )
    upper, lower, upper_weight, lower_weight = (
        x.to(image.device) for x in _taps(height, image.shape[1], edge_takes_all=False)
    )
    wide = image.int()
    rows = (wide[:, :, left] * left_weight[:, None] + wide[:, :, right] * right_weight[:, None]) >> 4  # (P, H, w, C)
    above = (rows[:, upper] * upper_weight[:, None, None]) >> 16
    below = (rows[:, lower] * lower_weight[:, None, None]) >> 16
    return ((above + below + 2) >> 2).clamp(0, 255).to(torch.uint8)


def _taps(new: int, old: int, *, edge_takes_all: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Along one axis: the two old pixels of each new one, int64, and their weights out of 2048, int32.

    Beyond the centre of the first or last pixel, both are the edge pixel. Horizontally it then has the whole weight;
    vertically the two weights are rounded separately, which can lose a level, as in OpenCV.
    """
    # The position is computed in double and stored in float, as in OpenCV; weights round half to even.
    position = ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5).float()
    first = position.floor()
    fraction = position - first
    if edge_takes_all:
        fraction = torch.where((first < 0) | (first >= old - 1), torch.zeros_like(fraction), fraction)
    weights = [torch.round(w * WEIGHT_ONE).int() for w in (1 - fraction, fraction)]
    return first.clamp(0, old - 1).long(), (first + 1).clamp(0, old - 1).long(), weights[0], weights[1]
