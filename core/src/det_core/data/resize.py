"""Bilinear resizing and mirroring of images, bit-exact with OpenCV, which old checkpoints were trained and tested with.

`fixed_point`, the default, is the arithmetic of OpenCV's 8-bit bilinear resize, as in the reference. Floating point
with one rounding differs by one level in every tenth pixel, which moves detections near a threshold. `float` is the
arithmetic of torchvision's detectors, which keep the fractions. `antialiased` is Pillow's resize, as in detectron2.

Letters: C channels, H W old size, h w new size.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from det_ops import Canvas, resize_bilinear

Arithmetic = Literal["fixed_point", "float", "antialiased"]


def resize_image(
    image: Tensor,
    size: tuple[int, int],
    arithmetic: Arithmetic = "fixed_point",
    *,
    flip_x: bool = False,
    flip_y: bool = False,
    canvas: Canvas | None = None,
) -> Tensor:
    """Resize an image: bilinear at pixel centres, without antialiasing unless named so; then mirror it.

    Args:
        image: (C, H, W) uint8, planes or channels last; with `float` also floating point.
        size: (h, w).
        arithmetic: see above.
        flip_x, flip_y: mirror left and right, top and bottom.
        canvas: on which a uint8 image is placed; it is resized with the image, without being drawn.

    Returns:
        (C, h, w) uint8; with `float` float32 in 0..255, or the image's floating-point dtype. In the image's layout.
    """
    if image.is_floating_point() and arithmetic == "float" and canvas is None:
        return mirror(F.interpolate(image[None], size, mode="bilinear", align_corners=False)[0], flip_x, flip_y)
    if image.dtype != torch.uint8 or image.dim() != 3:
        raise ValueError(f"image is {tuple(image.shape)} {image.dtype}, expected (C, H, W) torch.uint8")
    if arithmetic == "antialiased":
        if canvas is not None:
            raise ValueError("an image on a canvas must be drawn before it is resized by Pillow")
        return mirror(_with_pillow(image, size), flip_x, flip_y)
    return resize_bilinear(image, size, arithmetic, flip_x=flip_x, flip_y=flip_y, canvas=canvas)


def _with_pillow(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An RGB image (3, H, W) uint8 resized to (h, w) by Pillow, pixel by pixel."""
    if len(image) != 3:
        raise ValueError(f"image has {len(image)} channels, expected 3: Pillow resizes colour images")
    pixels = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    resized = np.array(pixels.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return torch.from_numpy(resized).permute(2, 0, 1)


def flip_image(image: Tensor, flip_x: bool, flip_y: bool) -> Tensor:
    """An image (C, H, W) of any dtype mirrored left and right, top and bottom."""
    if image.dtype != torch.uint8:
        return mirror(image, flip_x, flip_y)
    return resize_bilinear(image, (image.shape[1], image.shape[2]), flip_x=flip_x, flip_y=flip_y)


def mirror(maps: Tensor, flip_x: bool, flip_y: bool) -> Tensor:
    """Maps (..., H, W) mirrored left and right, top and bottom."""
    axes = [axis for axis, flip in ((-1, flip_x), (-2, flip_y)) if flip]
    return maps.flip(axes) if axes else maps
