"""The annotations of a COCO file as arrays, which are checked at once.

Files have millions of records: looking at each takes several times as long as reading the JSON. Letters: M annotations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from attrs import frozen

from det_core.data.bounds import TOLERANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

Record = dict[str, Any]
NUMBERS = {int, float}
RULES = ("", "marked as ignored", "without area", "with a side below 1 pixel", "with a mask without pixels")


@frozen(eq=False, kw_only=True)
class AnnotationColumns:
    """The M annotations of a file in its order.

    ids, images, categories: (M,) int64 ids. boxes: (M, 4) float64 xywh. areas: (M,) float64, of the box where a record
    has none. crowd: (M,) bool. rules: (M,) uint8, positions in `RULES` of what excludes an annotation from training.
    """

    ids: NDArray[np.int64]
    images: NDArray[np.int64]
    categories: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    rules: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, chosen: NDArray[Any]) -> AnnotationColumns:
        """The annotations chosen by a mask or by positions."""
        return attrs.evolve(self, **{f.name: getattr(self, f.name)[chosen] for f in attrs.fields(AnnotationColumns)})


def columns_of(records: Sequence[Record]) -> AnnotationColumns | None:
    """The annotations as arrays, or None if some value is missing or has a type that arrays do not hold as it is."""
    try:
        ids, images, categories = (_whole([r[key] for r in records]) for key in ("id", "image_id", "category_id"))
        boxes = _boxes([r["bbox"] for r in records])
        given = [r.get("area") for r in records]
        crowd = [r.get("iscrowd") for r in records]
        ignored = np.fromiter((bool(r.get("ignore")) for r in records), np.bool_, len(records))
        if not set(crowd) <= {None, 0, 1} or not _types(given) <= {*NUMBERS, type(None)}:
            return None
        areas = np.array([np.nan if area is None else area for area in given], np.float64)
        absent = np.fromiter((area is None for area in given), np.bool_, len(records))
    except (KeyError, TypeError, AttributeError, OverflowError, ValueError):
        return None
    areas = np.where(absent, boxes[:, 2] * boxes[:, 3], areas)
    return AnnotationColumns(
        ids=ids,
        images=images,
        categories=categories,
        boxes=boxes,
        areas=areas,
        crowd=np.fromiter((value == 1 for value in crowd), np.bool_, len(records)),
        rules=_rules(boxes, areas, ignored),
    )


def suspects(columns: AnnotationColumns, sizes: Mapping[int, tuple[int, int]], categories: Iterable[int]) -> Any:
    """(M,) bool: which annotations may be bad, and need a closer look. sizes: (height, width) by image id."""
    known = np.fromiter(sizes, np.int64, len(sizes))
    order = np.argsort(known)
    place = np.searchsorted(known[order], columns.images)
    found = order[np.minimum(place, len(known) - 1)] if len(known) else np.zeros(len(columns), np.int64)
    strange = np.ones(len(columns), np.bool_) if not len(known) else known[found] != columns.images
    strange |= ~np.isin(columns.categories, np.fromiter(categories, np.int64))
    first = np.zeros(len(columns), np.bool_)
    first[np.unique(columns.ids, return_index=True)[1]] = True
    strange |= ~first
    strange |= ~(np.isfinite(columns.boxes).all(axis=1) & np.isfinite(columns.areas))
    if len(known):
        strange |= _outside(columns.boxes, np.array(list(sizes.values()), np.int64)[found])
    return strange


def _outside(boxes: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which boxes (M, 4) have no area, or reach outside of their image of sizes (M, 2)."""
    x, y, w, h = boxes.T
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = (w <= 0) | (h <= 0) | (x < -TOLERANCE) | (y < -TOLERANCE)
        wrong |= (x + w > sizes[:, 1] + TOLERANCE) | (y + h > sizes[:, 0] + TOLERANCE)
    return np.asarray(wrong)


def _rules(boxes: NDArray[np.float64], areas: NDArray[np.float64], ignored: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The rules by which the reference excludes valid annotations from training, as positions in `RULES`."""
    thin = (boxes[:, 2] < 1) | (boxes[:, 3] < 1)
    return np.select([ignored, areas <= 0, thin], [1, 2, 3], 0).astype(np.uint8)


def _types(values: Iterable[object]) -> set[type]:
    return set(map(type, values))


def _whole(values: list[Any]) -> NDArray[np.int64]:
    """Whole numbers of at most 64 bits; TypeError or OverflowError for others."""
    if not _types(values) <= {int}:
        raise TypeError
    return np.array(values, np.int64)


def _boxes(values: list[Any]) -> NDArray[np.float64]:
    """(M, 4) numbers; TypeError, ValueError or OverflowError for others."""
    flat = list(chain.from_iterable(values))
    if not _types(values) <= {list} or not set(map(len, values)) <= {4} or not _types(flat) <= NUMBERS:
        raise TypeError
    return np.array(flat, np.float64).reshape(-1, 4)
