"""Checks of arguments that several operators share. Each raises an error that says what was found and expected.

A `subject` is the start of the message, such as "boxes have".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor

Pair = int | tuple[int, int]


def check_shape(x: Tensor, subject: str, expected: Sequence[int], note: str = "") -> None:
    """x (...) has the expected shape; ValueError otherwise."""
    if x.shape != tuple(expected):
        raise ValueError(f"{subject} shape {tuple(x.shape)}, expected {tuple(expected)}{note}")


def check_floating(x: Tensor, subject: str, remedy: str = "") -> None:
    """x (...) has a floating-point dtype; TypeError otherwise."""
    if not x.is_floating_point():
        raise TypeError(f"{subject} dtype {x.dtype}, expected a floating-point dtype{remedy}")


def check_int64(x: Tensor, subject: str) -> None:
    """x (...) is int64; TypeError otherwise."""
    if x.dtype != torch.int64:
        raise TypeError(f"{subject} dtype {x.dtype}, expected torch.int64")


def check_choice(value: str, name: str, choices: Any) -> None:
    """The value is among `choices`, a Literal type of at least two strings; ValueError otherwise."""
    *first, last = map(repr, get_args(choices))
    if value not in get_args(choices):
        raise ValueError(f"{name} is {value!r}, expected {', '.join(first)} or {last}")


def check_at_least(value: int, name: str, least: int, note: str = "") -> None:
    """The value is not below `least`; ValueError otherwise."""
    if value < least:
        raise ValueError(f"{name} is {value}, expected at least {least}{note}")


def check_pixel_offset(offset: int) -> None:
    """Whether widths and heights of boxes are exclusive (0) or inclusive (1) of the last pixel."""
    if offset not in (0, 1):
        raise ValueError(f"offset is {offset}, expected 0 or 1")


def check_boxes(boxes: Tensor, name: str = "boxes") -> None:
    """Boxes (N, 4) of a floating-point dtype; ValueError or TypeError otherwise."""
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} have shape {tuple(boxes.shape)}, expected (N, 4)")
    check_floating(boxes, f"{name} have", "; convert them with .float()")


def check_box_pair(boxes: Tensor, others: Tensor, name: str) -> None:
    """Boxes (N, 4) and others (M, 4) of one floating-point dtype; ValueError or TypeError otherwise."""
    check_boxes(boxes)
    check_boxes(others, name)
    if boxes.dtype != others.dtype:
        raise TypeError(f"boxes have dtype {boxes.dtype} and {name} {others.dtype}, expected the same")


def check_scored_boxes(boxes: Tensor, scores: Tensor) -> None:
    """Boxes (N, 4) and scores (N,) of floating-point dtypes; ValueError or TypeError otherwise."""
    check_boxes(boxes)
    check_shape(scores, "scores have", boxes.shape[:1], " to match boxes")
    check_floating(scores, "scores have", "; convert them with .float()")


def check_features(features: Tensor, name: str = "features") -> None:
    """Maps (B, C, H, W) of a floating-point dtype, H and W at least 1; ValueError or TypeError otherwise."""
    if features.dim() != 4:
        raise ValueError(f"{name} have shape {tuple(features.shape)}, expected (B, C, H, W)")
    if min(features.shape[2:]) < 1:
        raise ValueError(f"{name} have shape {tuple(features.shape)}, expected at least one pixel to pool from")
    check_floating(features, f"{name} have")


def check_rois(rois: Tensor) -> None:
    """RoIs (K, 5) of a floating-point dtype; ValueError or TypeError otherwise."""
    if rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(f"rois have shape {tuple(rois.shape)}, expected (K, 5)")
    check_floating(rois, "rois have")


def check_pooling(rois: Tensor, output_size: tuple[int, int], *scales: float) -> None:
    """What all pooling operators take except the features, rois (K, 5) among them; ValueError or TypeError if wrong."""
    check_rois(rois)
    if min(output_size) < 1:
        raise ValueError(f"output_size is {output_size}, expected at least 1 each")
    for scale in scales:
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"scale is {scale}, expected a positive number")


def check_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    """x (B, C, H, W), weight (O, C / groups, kh, kw) and bias (O,) fit; ValueError or TypeError otherwise."""
    if x.dim() != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, C, H, W)")
    if weight.dim() != 4 or weight.shape[1] * groups != x.shape[1] or weight.shape[0] % groups:
        expected = f"(O, {x.shape[1]} / {groups}, kh, kw) with O a multiple of {groups}"
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected {expected}")
    if bias is not None:
        check_shape(bias, "bias has", weight.shape[:1])
    check_floating(x, "x has")
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"x has dtype {x.dtype} and weight {weight.dtype}, expected the same (or use autocast)")


def as_pair(value: Pair, name: str, least: int) -> list[int]:
    """An int twice, or a pair of at least `least` each as a list; ValueError otherwise."""
    pair = [value, value] if isinstance(value, int) else list(value)
    if len(pair) != 2 or min(pair) < least:
        raise ValueError(f"{name} is {value}, expected an integer or a pair of at least {least}")
    return pair


def check_images(rois: Tensor, images: int) -> None:
    """In a kernel: raises for rois (K, 5) with an image index outside 0..images-1. See `check_index_range`."""
    check_index_range("rois name an image outside", rois[:, 0], images)


def check_index_range(text: str, numbers: Tensor, count: int) -> None:
    """In a kernel: raises if any of numbers (K,) is outside 0..count-1, and names the first.

    Checks on the CPU only: elsewhere, reading the data would synchronise with the device.
    """
    if numbers.device.type != "cpu":
        return
    wrong = (~((numbers >= 0) & (numbers < count))).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise RuntimeError(f"{text} 0..{count - 1}: row {row} has {numbers[row].item():g}")
