"""Annotations in COCO's terms as lines of YOLO's format, and back without loss.

The two formats write other numbers: fractions of the image's sides, and pixels. A number in pixels is written as the
shortest fraction that gives these pixels again. Where that is not the fraction that was read, since several fractions
round to the same pixels, a converted annotation keeps what was read in its key `yolo`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from det_core.data.coco_columns import Record
from det_core.data.instance_masks import segmentation_problem
from det_core.data.polygons import MIN_RING
from det_core.data.yolo_files import box_in_pixels, polygon_in_pixels

DIGITS = range(6, 18)  # significant digits that are tried; 17 are enough for any float
NEIGHBOURS = 4  # floats on each side of an estimate that are tried

Size = tuple[int, int]  # width, height


def to_line(record: Record, label: int, size: Size) -> tuple[str, str]:
    """The line of an annotation, and what is lost of it, or "".

    Args:
        record: a checked annotation, in pixels.
        label: the number of its class.
        size: (width, height) of its image.
    """
    ring, lost = _ring(record, size)
    values = _given(record, ring, size) or fractions(record["bbox"] if ring is None else ring, size, ring is None)
    return " ".join([str(label), *map(_text, values)]), lost


def without_values(record: Record, size: Size) -> Record:
    """An annotation that `read_yolo` gave its `yolo`, which it keeps only if `to_line` would not give it again."""
    values = record["yolo"]
    rest = {key: value for key, value in record.items() if key != "yolo"}
    ring = rest["segmentation"][0] if "segmentation" in rest else None
    again = fractions(rest["bbox"] if ring is None else ring, size, ring is None)
    return rest if again == values else record


def fractions(numbers: Sequence[float], size: Size, box: bool) -> list[float]:
    """A box (x, y, width, height) as (cx, cy, width, height), or a polygon, in fractions of an image's sides."""
    if not box:
        return [_fraction(value, size[place % 2]) for place, value in enumerate(numbers)]
    x, y, w, h = numbers
    width, height = _fraction(w, size[0]), _fraction(h, size[1])
    return [_centre(x, width, size[0]), _centre(y, height, size[1]), width, height]


def _fraction(pixels: float, side: int) -> float:
    return _shortest(pixels / side, lambda value: value * side == pixels)


def _centre(start: float, length: float, side: int) -> float:
    """The fraction of the centre of a box that begins at `start` pixels and is `length` (a fraction) long."""
    half = length * side / 2
    return _shortest((start + half) / side, lambda value: value * side - half == start)


def _shortest(estimate: float, is_exact: Callable[[float], bool]) -> float:
    """The number with the fewest digits near an estimate that is exact; the estimate if none is."""
    for digits in DIGITS:
        value = float(f"{estimate:.{digits}g}")
        if is_exact(value):
            return value
    for direction in (math.inf, -math.inf):
        value = estimate
        for _ in range(NEIGHBOURS):
            value = math.nextafter(value, direction)
            if is_exact(value):
                return value
    return estimate


def _text(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _given(record: Record, ring: list[float] | None, size: Size) -> list[float] | None:
    """The fractions that a converted annotation keeps, if they are still those of its box or polygon."""
    values = record.get("yolo")
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        return None
    if ring is not None:
        return values if polygon_in_pixels(values, size) == ring else None
    return values if len(values) == 4 and list(box_in_pixels(values, size)) == record["bbox"] else None


def _ring(record: Record, size: Size) -> tuple[list[float] | None, str]:
    """The mask of an annotation as one polygon, None if a box is written instead; and what is lost, or ""."""
    value: Any = record.get("segmentation")
    if not value:
        return None, ""
    if segmentation_problem(value, size[1], size[0]):
        return None, "with a mask that is not usable, written as boxes"
    if isinstance(value, dict):
        return None, "with a run-length code for a mask, written as boxes"
    rings = [ring for ring in value if len(ring) >= MIN_RING]
    if len(rings) == 1:
        return list(rings[0]), ""
    return joined(rings), "of several polygons, joined into one by lines without width"


def joined(rings: Sequence[Sequence[float]]) -> list[float]:
    """Polygons as one, which goes to the first point of each of the others and back."""
    start = list(rings[0][:2])
    made = [*rings[0], *start]
    for ring in rings[1:]:
        made += [*ring, *ring[:2], *start]
    return made
