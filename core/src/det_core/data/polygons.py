"""Polygons of annotations, as lists x, y, x, y, ... in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MIN_RING = 6  # numbers in the smallest polygon with an area: three points


def polygon_area(ring: Sequence[float]) -> float:
    """The area of a polygon by the shoelace formula."""
    xs, ys = ring[::2], ring[1::2]
    following = zip(xs, ys, [*xs[1:], *xs[:1]], [*ys[1:], *ys[:1]], strict=True)
    return abs(sum(x * b - a * y for x, y, a, b in following)) / 2


def box_and_area(rings: Sequence[Sequence[float]]) -> dict[str, Any]:
    """`bbox` (x, y, width, height) and `area` of polygons, whose areas are added."""
    xs, ys = [x for ring in rings for x in ring[::2]], [y for ring in rings for y in ring[1::2]]
    left, top = min(xs), min(ys)
    return {"bbox": [left, top, max(xs) - left, max(ys) - top], "area": sum(map(polygon_area, rings))}
