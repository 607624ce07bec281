"""Bounds of what annotation files may say: numbers that arrays hold, and places in an image."""

from __future__ import annotations

import math

TOLERANCE = 1.0  # pixels that a box or polygon may extend outside its image: some tools round, some count from 0
INT64 = range(-(2**63), 2**63)
MAX_SIDE = 2**20  # pixels; pycocotools counts the pixels of a mask in 32 bits


def is_finite(value: object) -> bool:
    """Whether a value is a number, not true or false, that float64 holds as a finite one."""
    try:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:  # an int of hundreds of digits
        return False


def is_id(value: object) -> bool:
    """Whether a value is a whole number of at most 64 bits."""
    return type(value) is int and value in INT64


def is_side(value: object) -> bool:
    """Whether a value is a width or height in pixels."""
    return type(value) is int and 1 <= value <= MAX_SIDE
