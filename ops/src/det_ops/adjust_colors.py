"""Brightness, contrast, saturation and hue of 8-bit images. Letters: H W image size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from det_ops import checks
from det_ops.reference import colors as reference
from det_ops.registration import operator

ColorStep = Literal["brightness", "contrast", "saturation", "hue"]
KINDS = get_args(ColorStep)  # a step's position is its number


def adjust_colors(
    image: Tensor, steps: Sequence[tuple[ColorStep, float]], channels: Sequence[int] = (0, 1, 2)
) -> Tensor:
    """Changes the colours of an image step by step, then orders its channels.

    The result is that of torchvision's `adjust_brightness`, `adjust_contrast`, `adjust_saturation`, `adjust_hue` and
    `permute_channels` (of `transforms.v2.functional`), one after the other, bit by bit: each step truncates to 8 bits.
    It is one pass over the image, plus one per contrast, which depends on the mean of the image.

    Weighted sums are rounded once, as by torch on CPUs that have fused multiply-add. Where torch rounds twice (CPUs
    before 2013), its saturation differs by one level in up to 0.4 % of the values.

    Args:
        image: (3, H, W) uint8 RGB, plane by plane or pixel by pixel (channels last).
        steps: What to change, with its factor: at least 0, of which 1 changes nothing. The factor of "hue" is a shift
            by a fraction of the colour circle, -0.5 to 0.5.
        channels: The channel that each channel of the result is.

    Returns:
        (3, H, W) uint8, in the memory layout of the image.

    Raises:
        ValueError: for another shape, an image without pixels, an unknown step, a factor out of range, or channels that
            are no order of 0, 1 and 2.
        TypeError: for an image that is not uint8.
    """
    if image.dim() != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise ValueError(f"image has shape {tuple(image.shape)}, expected (3, H, W) with at least one pixel")
    if image.dtype != torch.uint8:
        raise TypeError(f"image has dtype {image.dtype}, expected torch.uint8")
    if sorted(channels) != [0, 1, 2]:
        raise ValueError(f"channels are {list(channels)}, expected 0, 1 and 2 in any order")
    for step, factor in steps:
        checks.check_choice(step, "step", ColorStep)
        least, most = (-0.5, 0.5) if step == "hue" else (0.0, float("inf"))
        if not least <= factor < float("inf") or factor > most:
            raise ValueError(f"factor of {step} is {factor}, expected {least:g} to {most:g}")
    numbers, factors = [KINDS.index(step) for step, _ in steps], [float(factor) for _, factor in steps]
    pixels = image.permute(1, 2, 0)
    adjusted = _adjust_colors(pixels, numbers, factors, list(channels)).permute(2, 0, 1)
    return adjusted if pixels.is_contiguous() else adjusted.contiguous()


_adjust_colors = operator(
    "adjust_colors",
    reference.adjust_colors,
    fake=lambda image, steps, factors, channels: image.new_empty(image.shape, dtype=torch.uint8),
)
