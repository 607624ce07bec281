"""AP of parts of the objects: by size, shape, place and number in the image.

Letters: K classes, N detections, M objects, T IoU thresholds.

As in COCO's AP of small, medium and large objects, objects outside of a part are ignored, as are the detections that
are matched with them, and wrong detections that are themselves outside of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from attrs import frozen

from det_core.analysis.average_precision import Ranking, average_precisions, mean, objects_by_class
from det_core.analysis.columns import Columns, Flags, Floats, Ints
from det_core.analysis.matching import HALF, NONE, Matches


@frozen(eq=False)
class Part:
    """ap: mean AP over IoU .50 to .95; ap50 at .50. by_class (K,): AP, nan without objects. objects (K,): their number.

    recall: share of the objects that are found at IoU .50.
    """

    name: str
    ap: float
    ap50: float
    recall: float
    by_class: Floats
    objects: Ints


@frozen(eq=False)
class Breakdown:
    """The parts of one attribute of objects."""

    name: str
    note: str
    parts: tuple[Part, ...]


@frozen(eq=False)
class _Attribute:
    """An attribute of objects and detections, and the bins of its values: lower edges, the last bin is open."""

    name: str
    note: str
    bins: Sequence[tuple[str, float, float]]
    objects: Floats
    found: Floats


def breakdowns_of(columns: Columns, matches: Matches) -> Iterator[Breakdown]:
    """AP by area, objects in the image, aspect ratio, and distance from the border."""
    ranking = Ranking.of(columns.found.labels, columns.found.scores, len(columns.classes))
    whole = _AllMatched.of(columns, matches)
    for attribute in _attributes(columns):
        sides = (attribute.objects, attribute.found)
        parts = [
            _part(columns, matches, ranking, whole, label, *(_inside(values, low, high) for values in sides))
            for label, low, high in attribute.bins
        ]
        yield Breakdown(attribute.name, attribute.note, tuple(parts))


@frozen(eq=False)
class _AllMatched:
    """objects (T, N): the object that a detection is matched with, 0 where there is none; any (T, N): there is one."""

    objects: Ints
    any: Flags

    @classmethod
    def of(cls, columns: Columns, matches: Matches) -> _AllMatched:
        some = matches.objects != NONE
        return cls(np.where(some, matches.objects, 0), some)


def _inside(values: Floats, low: float, high: float) -> Flags:
    return np.asarray((values >= low) & (values < high), np.bool_)


def _part(
    columns: Columns, matches: Matches, ranking: Ranking, matched: _AllMatched, name: str, ours: Flags, theirs: Flags
) -> Part:
    """The AP of objects `ours` (M,), with the detections `theirs` (N,) where these are wrong."""
    objects = columns.objects
    kept = ours & ~objects.ignored
    of_kept = kept[matched.objects] & matched.any if len(objects) else matched.any
    right = matches.right & of_kept
    counted = right | (~matched.any & theirs)
    counts = objects_by_class(objects.labels, kept, len(columns.classes))
    ap = average_precisions(ranking, right, counted, counts)
    found = int(right[HALF].sum())
    by_class = ap.mean(0)
    return Part(
        name=name,
        ap=mean(by_class),
        ap50=mean(ap[HALF]),
        recall=found / counts.sum() if counts.sum() else float("nan"),
        by_class=by_class,
        objects=counts.astype(np.int64),
    )


def _attributes(columns: Columns) -> Iterator[_Attribute]:
    objects, found, sizes = columns.objects, columns.found, columns.images.sizes
    yield _Attribute(
        "size",
        "area in pixels of the image, as in COCO's metrics",
        (("small (below 32²)", 0, 32**2), ("medium (to 96²)", 32**2, 96**2), ("large", 96**2, np.inf)),
        objects.areas,
        found.areas,
    )
    present = np.bincount(objects.images[~objects.ignored], minlength=len(columns.images)).astype(np.float64)
    yield _Attribute(
        "objects in the image",
        "all classes together",
        (("1", 1, 2), ("2 to 5", 2, 6), ("6 to 10", 6, 11), ("11 to 20", 11, 21), ("over 20", 21, np.inf)),
        present[objects.images],
        present[found.images],
    )
    yield _Attribute(
        "aspect ratio",
        "width over height of the box",
        (
            ("below 1/3", 0, 1 / 3),
            ("1/3 to 2/3", 1 / 3, 2 / 3),
            ("2/3 to 3/2", 2 / 3, 3 / 2),
            ("3/2 to 3", 3 / 2, 3),
            ("over 3", 3, np.inf),
        ),
        _aspects(objects.boxes),
        _aspects(found.boxes),
    )
    yield _Attribute(
        "distance from the border",
        "of the box from the nearest side of the image, as a share of the image's shorter side",
        (("touching (below 1 %)", -np.inf, 0.01), ("1 to 10 %", 0.01, 0.1), ("over 10 %", 0.1, np.inf)),
        _distances(objects.boxes, sizes[objects.images]),
        _distances(found.boxes, sizes[found.images]),
    )


def _aspects(boxes: Floats) -> Floats:
    """(n,) width over height; a side is at least a thousandth of a pixel."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    return np.asarray(sides[:, 0] / sides[:, 1], np.float64)


def _distances(boxes: Floats, sizes: Ints) -> Floats:
    """(n,) distance from the nearest side of the image, over its shorter side."""
    gaps = np.concatenate([boxes[:, :2], sizes[:, ::-1] - boxes[:, 2:]], 1)
    return np.asarray(gaps.min(1) / sizes.min(1), np.float64)
