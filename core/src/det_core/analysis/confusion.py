"""Which classes are taken for which, with background, at a score threshold.

Letters: N detections, M objects, K classes.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from det_core.analysis.columns import SLACK, Columns, Flags, Ints
from det_core.analysis.matching import HALF, NONE, THRESHOLDS, Matches


@frozen(eq=False)
class Confusion:
    """counts (K + 1, K + 1): objects of a class (row) detected as a class (column).

    The last column counts objects that no detection is matched with, the last row detections without an object.
    truths, detected (E,): the cell of each entry; images (E,): its image. found, objects (E,): its detection and
    object, or `NONE`.
    """

    threshold: float
    counts: Ints
    truths: Ints
    detected: Ints
    images: Ints
    found: Ints
    objects: Ints


def confusion_of(columns: Columns, matches: Matches, threshold: float) -> Confusion:
    """The confusion matrix of the detections whose score is above a threshold.

    Each detection, best first, is matched with an object that is left, with IoU of at least .50: first with objects of
    its class, then the remaining detections with those of other classes, each with the object of the highest IoU.
    Ignored objects, and detections matched with them, do not count.
    """
    found, objects, background = columns.found, columns.objects, len(columns.classes)
    kept = (found.scores > threshold) & ~matches.ignored[HALF]
    matched = np.where(kept & matches.right[HALF], matches.objects[HALF], NONE)
    taken = objects.ignored.copy()
    taken[matched[matched != NONE]] = True
    _match_others(columns, kept, matched, taken)
    rows = np.flatnonzero(kept)
    of_rows = matched[rows]
    missed = np.flatnonzero(~taken)
    truths = np.where(of_rows == NONE, background, objects.labels[of_rows] if len(objects) else background)
    nothing = np.full(len(missed), NONE, np.int64)
    entries = Confusion(
        threshold=threshold,
        counts=np.zeros((background + 1, background + 1), np.int64),
        truths=np.r_[truths, objects.labels[missed]],
        detected=np.r_[found.labels[rows], np.full(len(missed), background, np.int64)],
        images=np.r_[found.images[rows], objects.images[missed]],
        found=np.r_[rows, nothing],
        objects=np.r_[of_rows, missed],
    )
    np.add.at(entries.counts, (entries.truths, entries.detected), 1)
    return entries


def _match_others(columns: Columns, kept: Flags, matched: Ints, taken: Flags) -> None:
    """Match what is left of detections with what is left of objects, of any class; writes `matched` and `taken`."""
    pairs = columns.pairs
    left = kept[pairs.found] & (matched[pairs.found] == NONE) & ~taken[pairs.objects]
    pairs = pairs.chosen(left & (pairs.ious >= THRESHOLDS[HALF] - SLACK))
    order = np.lexsort((-pairs.ious, pairs.found))
    for detection, target in zip(pairs.found[order].tolist(), pairs.objects[order].tolist(), strict=True):
        if matched[detection] == NONE and not taken[target]:
            matched[detection], taken[target] = target, True
