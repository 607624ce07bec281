"""AP as COCO computes it, from detections that are matched already, with a weight for each image.

Letters: K classes, N detections, T IoU thresholds, R recall levels.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from det_core.analysis.columns import Flags, Floats, Ints

RECALLS = np.linspace(0, 1, 101)
EPSILON = float(np.spacing(1))


@frozen(eq=False)
class Ranking:
    """Detections by class and descending score. order (N,): rows. starts (K + 1,): where each class begins."""

    order: Ints
    starts: Ints

    @classmethod
    def of(cls, labels: Ints, scores: Floats, classes: int) -> Ranking:
        """Rank detections; equal scores stay in their order, which is that of the images."""
        order = np.lexsort((-scores, labels))
        return cls(order, np.searchsorted(labels[order], np.arange(classes + 1)))

    def rows(self, label: int) -> Ints:
        """The rows of a class, best first."""
        return self.order[self.starts[label] : self.starts[label + 1]]


def average_precisions(
    ranking: Ranking, right: Flags, counted: Flags, objects: Floats, weights: Floats | None = None
) -> Floats:
    """(T, K) AP; nan for a class without objects.

    Args:
        ranking: of the detections.
        right: (T, N) detections that are right.
        counted: (T, N) detections that count, all right ones among them.
        objects: (K,) number of objects that count, weighted as the detections are.
        weights: (N,) how often each detection counts; by default once.
    """
    return np.asarray(precisions(ranking, right, counted, objects, weights).mean(2), np.float64)


def precisions(
    ranking: Ranking, right: Flags, counted: Flags, objects: Floats, weights: Floats | None = None
) -> Floats:
    """(T, K, R) precision at the recall levels `RECALLS`; arguments and nan as of `average_precisions`.

    The precision at a level is the highest at this recall or above, and 0 where the recall is not reached.
    """
    result = np.full((len(right), len(objects), len(RECALLS)), np.nan)
    for label in np.flatnonzero(objects > 0):
        rows = ranking.rows(int(label))
        weight = np.ones(len(rows)) if weights is None else weights[rows]
        for t in range(len(right)):
            result[t, label] = _precisions(right[t, rows], counted[t, rows], float(objects[label]), weight)
    return result


def _precisions(right: Flags, counted: Flags, objects: float, weights: Floats) -> Floats:
    """The precision at each recall level of detections in descending order of score.

    The precision is highest at a right detection, so that no others are looked at.
    """
    result = np.zeros(len(RECALLS))
    hits = np.flatnonzero(right)
    if hits.size:
        true = np.cumsum(weights[hits])
        seen = np.cumsum(weights * counted)[hits]
        best = np.maximum.accumulate((true / (seen + EPSILON))[::-1])[::-1]
        places = np.searchsorted(true / objects, RECALLS, side="left")
        reached = places < len(hits)
        result[reached] = best[places[reached]]
    return result


def mean(values: Floats) -> float:
    """The mean of the values that are not nan; nan if there are none."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def objects_by_class(labels: Ints, counted: Flags, classes: int, weights: Floats | Ints | None = None) -> Floats:
    """(K,) number of objects that count."""
    return np.bincount(labels[counted], None if weights is None else weights[counted], classes).astype(np.float64)
