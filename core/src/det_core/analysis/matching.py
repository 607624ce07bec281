"""Which detection finds which object, as COCO's evaluation assigns them.

Letters: T IoU thresholds, N detections, M objects, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import frozen

from det_core.analysis.columns import SLACK, Columns, Flags, Floats, Ints, Pairs

THRESHOLDS = tuple(float(x) for x in np.linspace(0.5, 0.95, 10))
HALF = 0  # position of IoU .50 in THRESHOLDS
NONE = -1


@frozen(eq=False)
class Matches:
    """objects (T, N): the object that a detection is matched with at each threshold, or `NONE`.

    right (T, N): matched with an object that counts. ignored (T, N): matched with an ignored object, so that the
    detection does not count.
    """

    thresholds: tuple[float, ...]
    objects: Ints
    right: Flags
    ignored: Flags

    def wrong(self, t: int = HALF) -> Flags:
        """(N,) detections that count and are not right."""
        return ~self.right[t] & ~self.ignored[t]

    def found(self, count: int, t: int = HALF) -> Flags:
        """(M,) objects that a right detection is matched with."""
        found = np.zeros(count, np.bool_)
        found[self.objects[t][self.right[t]]] = True
        return found


def match(columns: Columns, thresholds: Sequence[float] = THRESHOLDS) -> Matches:
    """Match detections with objects of their class, best detection first, each with the best object that is left.

    An object that counts is preferred to an ignored one, and an ignored object may be matched more than once.
    """
    ignored = columns.objects.ignored
    pairs = candidates(columns, thresholds[0])
    matched = np.stack([_match(pairs, ignored, threshold, len(columns.found)) for threshold in thresholds])
    of_ignored = np.zeros(matched.shape, np.bool_)
    of_ignored[matched != NONE] = ignored[matched[matched != NONE]]
    return Matches(tuple(thresholds), matched, (matched != NONE) & ~of_ignored, of_ignored)


def candidates(columns: Columns, least: float) -> Pairs:
    """Pairs of one class, in the order in which COCO's evaluation looks at them: best detection first.

    Of a detection, objects that count come before ignored ones.
    """
    pairs, objects = columns.pairs, columns.objects
    same = columns.found.labels[pairs.found] == objects.labels[pairs.objects]
    pairs = pairs.chosen(same & (pairs.ious >= least - SLACK))
    order = np.lexsort((pairs.objects, objects.ignored[pairs.objects], pairs.found))
    return Pairs(pairs.found[order], pairs.objects[order], pairs.ious[order])


def _match(pairs: Pairs, ignored: Flags, threshold: float, count: int) -> Ints:
    matched = np.full(count, NONE, np.int64)
    taken = bytearray(len(ignored))
    skip = ignored.tolist()
    rows = zip(pairs.found.tolist(), pairs.objects.tolist(), pairs.ious.tolist(), strict=True)
    current, best, best_iou = NONE, NONE, 0.0
    for detection, target, iou in rows:
        if detection != current:
            if best != NONE:
                matched[current] = best
                taken[best] = 1
            current, best, best_iou = detection, NONE, threshold - SLACK
        if taken[target] and not skip[target]:
            continue
        if iou < best_iou or (best != NONE and skip[target] and not skip[best]):
            continue
        best, best_iou = target, iou
    if best != NONE:
        matched[current] = best
    return matched


def best_overlaps(pairs: Pairs, count: int) -> tuple[Floats, Ints]:
    """For each of `count` detections its highest IoU among the pairs, and the object; 0 and `NONE` without a pair."""
    order = np.lexsort((pairs.ious, pairs.found))
    rows, ious, objects = pairs.found[order], pairs.ious[order], pairs.objects[order]
    last = np.flatnonzero(np.r_[rows[1:] != rows[:-1], True]) if len(rows) else np.zeros(0, np.int64)
    best, which = np.zeros(count), np.full(count, NONE, np.int64)
    best[rows[last]], which[rows[last]] = ious[last], objects[last]
    return best, which
