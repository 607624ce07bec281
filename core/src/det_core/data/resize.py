"""Bilinear resizing of 8-bit images, bit-exact with OpenCV, which old checkpoints were trained and tested with.

`fixed_point`, the default, is the arithmetic of OpenCV's 8-bit bilinear resize, as in the reference: weights of 11
bits, the horizontal sum shifted right by 4 bits, each vertical product by 16, rounded once at the end. Floating point
with one rounding differs by one level in every tenth pixel, which moves detections near a threshold. `float` is the
arithmetic of torchvision's detectors, which keep the fractions.

Letters: C channels, H W old size, h w new size.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Arithmetic = Literal["fixed_point", "float"]
WEIGHT_ONE = 2048  # 11 bits


def resize_image(image: Tensor, size: tuple[int, int], arithmetic: Arithmetic = "fixed_point") -> Tensor:
    """Resize an image: bilinear at pixel centres, without antialiasing.

    Args:
        image: (C, H, W) uint8; with `float` also floating point.
        size: (h, w).
        arithmetic: see above.

    Returns:
        (C, h, w) uint8; with `float` float32 in 0..255, or the image's floating-point dtype.
    """
    if arithmetic == "float":
        pixels = image if image.is_floating_point() else image.float()
        return F.interpolate(pixels[None], size, mode="bilinear", align_corners=False)[0]
    if image.dtype != torch.uint8 or image.dim() != 3:
        raise ValueError(f"image is {tuple(image.shape)} {image.dtype}, expected (C, H, W) torch.uint8")
    left, right, left_weight, right_weight = _taps(size[1], image.shape[2], edge_takes_all=True)
    upper, lower, upper_weight, lower_weight = _taps(size[0], image.shape[1], edge_takes_all=False)
    wide = image.int()
    rows = (wide[:, :, left] * left_weight + wide[:, :, right] * right_weight) >> 4  # (C, H, w)
    above = (rows[:, upper] * upper_weight[:, None]) >> 16
    below = (rows[:, lower] * lower_weight[:, None]) >> 16
    return ((above + below + 2) >> 2).clamp(0, 255).to(torch.uint8)


def _taps(new: int, old: int, *, edge_takes_all: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Along one axis: the two old pixels of each new one, int64, and their weights out of 2048, int32.

    Beyond the centre of the first or last pixel, both are the edge pixel. Horizontally it then has the whole weight;
    vertically the two weights are rounded separately, which can lose a level, as in the reference.
    """
    # The position is computed in double and stored in float, as in the reference; weights round half to even.
    position = ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5).float()
    first = position.floor()
    fraction = position - first
    if edge_takes_all:
        fraction = torch.where((first < 0) | (first >= old - 1), torch.zeros_like(fraction), fraction)
    weights = [torch.round(w * WEIGHT_ONE).int() for w in (1 - fraction, fraction)]
    return first.clamp(0, old - 1).long(), (first + 1).clamp(0, old - 1).long(), weights[0], weights[1]
