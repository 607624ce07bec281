"""Bilinear resizing of 8-bit images, mirrored on the way. Letters: C channels, H W old size, h w new size."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from det_ops import checks
from det_ops.reference import resize as reference
from det_ops.registration import operator

Arithmetic = Literal["fixed_point", "float"]


def resize_bilinear(
    image: Tensor,
    size: tuple[int, int],
    arithmetic: Arithmetic = "fixed_point",
    *,
    flip_x: bool = False,
    flip_y: bool = False,
) -> Tensor:
    """Resizes an image: bilinear at pixel centres, without antialiasing, then optionally mirrored.

    Args:
        image: (C, H, W) uint8, plane by plane or pixel by pixel (channels last).
        size: (h, w).
        arithmetic: "fixed_point" is that of OpenCV's 8-bit resize, bit by bit; "float" that of
            `torch.nn.functional.interpolate`.
        flip_x: Whether to mirror left and right.
        flip_y: Whether to mirror top and bottom.

    Returns:
        (C, h, w) uint8, or float32 in 0..255 for "float", in the memory layout of the image.

    Raises:
        ValueError: for another shape, an image without pixels, a size below 1, or an unknown arithmetic.
        TypeError: for an image that is not uint8.
    """
    if image.dim() != 3 or 0 in image.shape:
        raise ValueError(f"image has shape {tuple(image.shape)}, expected (C, H, W) of at least 1 each")
    if image.dtype != torch.uint8:
        raise TypeError(f"image has dtype {image.dtype}, expected torch.uint8")
    if min(size) < 1:
        raise ValueError(f"size is {tuple(size)}, expected at least 1 each")
    checks.check_choice(arithmetic, "arithmetic", Arithmetic)
    height, width = size
    fixed_point = arithmetic == "fixed_point"
    pixels = image.permute(1, 2, 0)
    if pixels.is_contiguous() and image.shape[0] > 1:
        resized = _resize_bilinear(pixels[None], height, width, flip_x, flip_y, fixed_point)
        return resized[0].permute(2, 0, 1)
    return _resize_bilinear(image.contiguous()[..., None], height, width, flip_x, flip_y, fixed_point)[..., 0]


_resize_bilinear = operator(
    "resize_bilinear",
    reference.resize_bilinear,
    fake=lambda image, height, width, flip_x, flip_y, fixed_point: image.new_empty(
        (image.shape[0], height, width, image.shape[3]), dtype=torch.uint8 if fixed_point else torch.float32
    ),
)
