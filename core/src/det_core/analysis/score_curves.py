"""Precision, recall and F1 over the score, and the threshold with the highest F1; at IoU .50.

Letters: N detections, K classes, S distinct scores.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from det_core.analysis.columns import Columns, Flags, Floats
from det_core.analysis.matching import HALF, Matches


@frozen(eq=False)
class ScoreCurve:
    """scores, precision, recall (S,): of all detections with at least this score; scores descend. objects: that count.

    detections: that count.
    """

    scores: Floats
    precision: Floats
    recall: Floats
    objects: int
    detections: int

    @property
    def f1(self) -> Floats:
        """(S,) the harmonic mean of precision and recall; 0 if both are 0."""
        total = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)

    @property
    def best(self) -> int | None:
        """The position of the highest F1, the highest score of several; None if nothing is found."""
        return int(self.f1.argmax()) if self.scores.size and self.f1.max() > 0 else None

    @property
    def threshold(self) -> float | None:
        """A score threshold with the highest F1: halfway to the next lower score. None if nothing is found."""
        best = self.best
        if best is None:
            return None
        below = self.scores[best + 1] if best + 1 < len(self.scores) else 0.0
        return float((self.scores[best] + below) / 2)

    def at_best(self) -> tuple[float, float, float] | None:
        """Precision, recall and F1 at the best threshold; None if nothing is found."""
        best = self.best
        if best is None:
            return None
        return float(self.precision[best]), float(self.recall[best]), float(self.f1[best])

    def at(self, threshold: float) -> tuple[float, float, float]:
        """Precision, recall and F1 of the detections above a threshold; nan for the precision of none."""
        kept = int((self.scores > threshold).sum())
        if not kept:
            return float("nan"), 0.0 if self.objects else float("nan"), 0.0
        return float(self.precision[kept - 1]), float(self.recall[kept - 1]), float(self.f1[kept - 1])


def score_curve(scores: Floats, right: Flags, objects: int) -> ScoreCurve:
    """The curve of detections that count, in any order. Recall is nan without objects."""
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    ends = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True]) if len(scores) else np.zeros(0, np.int64)
    true = np.cumsum(right)[ends].astype(np.float64)
    recall = true / objects if objects else np.full(len(ends), np.nan)
    return ScoreCurve(scores[ends], true / (ends + 1), recall, objects, len(scores))


def all_curves(columns: Columns, matches: Matches) -> tuple[ScoreCurve, list[ScoreCurve]]:
    """The curve of all detections together, and that of each class."""
    counted, right = ~matches.ignored[HALF], matches.right[HALF]
    found, objects = columns.found, columns.objects
    counts = np.bincount(objects.labels[~objects.ignored], minlength=len(columns.classes))
    whole = score_curve(found.scores[counted], right[counted], int(counts.sum()))
    rows = np.flatnonzero(counted)
    rows = rows[np.argsort(found.labels[rows], kind="stable")]
    starts = np.searchsorted(found.labels[rows], np.arange(len(counts) + 1))
    parts = [rows[starts[label] : starts[label + 1]] for label in range(len(counts))]
    return whole, [
        score_curve(found.scores[part], right[part], int(count)) for part, count in zip(parts, counts, strict=True)
    ]
