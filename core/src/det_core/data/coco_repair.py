"""Repairing annotations that leave their image: boxes and polygons are clipped, and those without area left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from det_core.data.bounds import TOLERANCE, is_finite, is_id, is_side
from det_core.data.coco_columns import Record
from det_core.data.coco_sections import Sections
from det_core.data.polygons import MIN_RING, box_and_area
from det_core.errors import counted

Point = tuple[float, float]


def repaired(sections: Sections) -> Sections:
    """The data set with annotations clipped to their images, with a note on how many were changed and left out.

    Only annotations that the checks would refuse are changed. What cannot be clipped (a box that is no four numbers, a
    polygon of words) is left to the checks.
    """
    sizes = {
        record["id"]: (record["width"], record["height"])
        for record in sections.images
        if isinstance(record, dict)
        and is_id(record.get("id"))
        and is_side(record.get("width"))
        and is_side(record.get("height"))
    }
    annotations, kept, clipped = [], [], 0
    for index, record in enumerate(sections.annotations):
        made = _repaired(record, sizes)
        if made is not None:
            annotations.append(made)
            kept.append(index)
            clipped += made is not record
    left_out = len(sections.annotations) - len(kept)
    return attrs.evolve(
        sections,
        annotations=annotations,
        places=None if sections.places is None else [sections.places[i] for i in kept],
        notes=(*sections.notes, *repair_notes(sections.path, clipped, left_out)),
    )


def repair_notes(path: str | Path, clipped: int, left_out: int) -> tuple[str, ...]:
    """A line on what was repaired, or none."""
    if not clipped and not left_out:
        return ()
    what = f"{counted(clipped, 'annotation')} clipped to the image, {left_out} without area left out"
    return (f"{path}: repaired: {what}",)


def _repaired(record: Any, sizes: dict[int, tuple[int, int]]) -> Any:
    """The annotation itself if it needs no repair; None if nothing of it is in its image."""
    size = sizes.get(record["image_id"]) if isinstance(record, dict) and is_id(record.get("image_id")) else None
    box = None if size is None else record.get("bbox")
    if size is None or not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        return record
    rings = record.get("segmentation")
    has_rings = isinstance(rings, list) and bool(rings) and all(_is_ring(ring) for ring in rings)
    if not _leaves(box, size) and not (has_rings and any(_ring_leaves(ring, size) for ring in rings)):
        return _with_area(record, rings if has_rings else None) if min(box[2:]) <= 0 else record
    return _clipped(record, rings if has_rings else None, size)


def _with_area(record: Record, rings: list[list[float]] | None) -> Record | None:
    """An annotation whose box has no area: with the box of its polygons if these have one, or else none."""
    if rings is None:
        return None
    made = box_and_area(rings)
    return {**record, **made} if min(made["bbox"][2:]) > 0 else None


def _clipped(record: Record, rings: list[list[float]] | None, size: tuple[int, int]) -> Record | None:
    if rings is not None:
        inside = [ring for ring in (clip_polygon(ring, size) for ring in rings) if len(ring) >= MIN_RING]
        if not inside:
            return None
        made = box_and_area(inside)
        return {**record, "segmentation": inside, **made} if min(made["bbox"][2:]) > 0 else None
    x, y, w, h = record["bbox"]
    left, top = max(x, 0.0), max(y, 0.0)
    width, height = min(x + w, size[0]) - left, min(y + h, size[1]) - top
    if width <= 0 or height <= 0:
        return None
    area = {"area": width * height} if record.get("area") is not None else {}
    return {**record, "bbox": [left, top, width, height], **area}


def _leaves(box: Sequence[float], size: tuple[int, int]) -> bool:
    x, y, w, h = box
    return min(x, y) < -TOLERANCE or x + w > size[0] + TOLERANCE or y + h > size[1] + TOLERANCE


def _is_ring(ring: Any) -> bool:
    return isinstance(ring, list) and len(ring) % 2 == 0 and bool(ring) and all(map(is_finite, ring))


def _ring_leaves(ring: Sequence[float], size: tuple[int, int]) -> bool:
    xs, ys = ring[::2], ring[1::2]
    return _leaves((min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)), size)


def clip_polygon(ring: Sequence[float], size: tuple[int, int]) -> list[float]:
    """A polygon x, y, x, y, ... clipped to an image of (width, height) (Sutherland and Hodgman, 1974); may be empty."""
    points = list(zip(ring[::2], ring[1::2], strict=True))
    for axis, limit, sign in ((0, 0, 1), (0, size[0], -1), (1, 0, 1), (1, size[1], -1)):
        points = _clip_edge(points, axis, float(limit), sign)
    return [value for point in points for value in point]


def _clip_edge(points: list[Point], axis: int, limit: float, sign: int) -> list[Point]:
    """The part of a polygon where the coordinate `axis` is at least `limit` (sign 1) or at most (-1)."""

    def inside(point: Point) -> bool:
        return sign * (point[axis] - limit) >= 0

    made: list[Point] = []
    for before, point in zip(points[-1:] + points[:-1], points, strict=True):
        if inside(before) != inside(point):
            share = (limit - before[axis]) / (point[axis] - before[axis])
            other = before[1 - axis] + share * (point[1 - axis] - before[1 - axis])
            made.append((limit, other) if axis == 0 else (other, limit))
        if inside(point):
            made.append(point)
    return made
