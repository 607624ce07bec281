"""Bilinear resizing of 8-bit images, mirrored on the way. Letters: C channels, H W old size, h w new size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from det_ops import checks
from det_ops.reference import resize as reference
from det_ops.registration import operator

Arithmetic = Literal["fixed_point", "float"]


@dataclass(frozen=True)
class Canvas:
    """A larger image of one colour, onto which an image is placed.

    height, width: of the canvas. top, left: row and column of the image's first pixel. fill: the colour, a whole number
    of 0 to 255 per channel.
    """

    height: int
    width: int
    top: int
    left: int
    fill: tuple[int, ...]


def resize_bilinear(
    image: Tensor,
    size: tuple[int, int],
    arithmetic: Arithmetic = "fixed_point",
    *,
    flip_x: bool = False,
    flip_y: bool = False,
    canvas: Canvas | None = None,
) -> Tensor:
    """Resizes an image: bilinear at pixel centres, without antialiasing, then optionally mirrored.

    Args:
        image: (C, H, W) uint8, plane by plane or pixel by pixel (channels last); a crop of such an image is not copied.
        size: (h, w).
        arithmetic: "fixed_point" is that of OpenCV's 8-bit resize, bit by bit; "float" that of
            `torch.nn.functional.interpolate`.
        flip_x: Whether to mirror left and right.
        flip_y: Whether to mirror top and bottom.
        canvas: If given, the image is placed on this canvas, which is resized; it is never drawn.

    Returns:
        (C, h, w) uint8, or float32 in 0..255 for "float", in the memory layout of the image.

    Raises:
        ValueError: for another shape, an image without pixels, a size below 1, an unknown arithmetic, a canvas that the
            image is partly outside of, or a fill that is not C numbers of 0 to 255.
        TypeError: for an image that is not uint8.
    """
    if image.dim() != 3 or 0 in image.shape:
        raise ValueError(f"image has shape {tuple(image.shape)}, expected (C, H, W) of at least 1 each")
    if image.dtype != torch.uint8:
        raise TypeError(f"image has dtype {image.dtype}, expected torch.uint8")
    if min(size) < 1:
        raise ValueError(f"size is {tuple(size)}, expected at least 1 each")
    checks.check_choice(arithmetic, "arithmetic", Arithmetic)
    place, fill = ([], []) if canvas is None else _checked(canvas, image)
    options = (*size, flip_x, flip_y, arithmetic == "fixed_point", place, fill)
    if image.shape[0] > 1 and image.stride(0) == 1 and image.stride(2) == image.shape[0]:  # pixel by pixel
        return _resize_bilinear(image.permute(1, 2, 0)[None], *options)[0].permute(2, 0, 1)
    return _resize_bilinear(image[..., None], *options)[..., 0]


def _checked(canvas: Canvas, image: Tensor) -> tuple[list[int], list[int]]:
    """The place and the fill of a canvas; ValueError if they do not fit the image."""
    channels, height, width = image.shape
    place = [canvas.height, canvas.width, canvas.top, canvas.left]
    outside = canvas.top + height > canvas.height or canvas.left + width > canvas.width
    if min(canvas.top, canvas.left) < 0 or outside:
        raise ValueError(f"an image of {height} x {width} is partly outside of {canvas}")
    if len(canvas.fill) != channels or not all(0 <= value <= 255 for value in canvas.fill):
        raise ValueError(f"fill is {canvas.fill}, expected {channels} numbers of 0 to 255")
    return place, list(canvas.fill)


_resize_bilinear = operator(
    "resize_bilinear",
    reference.resize_bilinear,
    fake=lambda image, height, width, flip_x, flip_y, fixed_point, canvas, fill: image.new_empty(
        (image.shape[0], height, width, image.shape[3]), dtype=torch.uint8 if fixed_point else torch.float32
    ),
)
