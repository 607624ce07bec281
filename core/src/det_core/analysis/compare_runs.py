"""Two runs on the same images: differences of AP with an interval, and images that got better or worse.

Letters: I images, K classes, N detections, T IoU thresholds, S resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from attrs import frozen

from det_core.analysis.average_precision import Ranking, average_precisions, mean, objects_by_class
from det_core.analysis.columns import Columns, Floats, Ints
from det_core.analysis.image_errors import counts_of
from det_core.analysis.matching import HALF, Matches
from det_core.errors import DetError

INTERVAL = (2.5, 97.5)  # percentiles


@frozen(eq=False)
class Difference:
    """A difference B - A of a metric, and the percentile interval of its bootstrap distribution."""

    a: float
    b: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """B - A."""
        return self.b - self.a


@frozen(eq=False)
class Comparison:
    """ap, ap50: differences of the means over classes. classes: of the AP of each class (no interval: nan).

    f1_a, f1_b (I,): F1 of each image, each run at its own best threshold. resamples: number of them.
    """

    ap: Difference
    ap50: Difference
    classes: list[tuple[float, float]]
    f1_a: Floats
    f1_b: Floats
    resamples: int


def compare_runs(
    a: tuple[Columns, Matches, float],
    b: tuple[Columns, Matches, float],
    resamples: int = 200,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Compare two runs, each given by its columns, matches, and score threshold.

    The interval is that of the percentile bootstrap over images (Efron and Tibshirani, 1993, section 13.3): both runs
    are evaluated on the same images, drawn with replacement.

    Raises:
        DetError: if the images or the classes of the runs differ.
    """
    if a[0].classes != b[0].classes or not np.array_equal(a[0].images.ids, b[0].images.ids):
        raise DetError("the two runs are not on the same images and classes, so they cannot be compared")
    scorers = [_Scorer(columns, matches) for columns, matches, _ in (a, b)]
    points = [scorer(None) for scorer in scorers]
    drawn = np.zeros((resamples, 2, 2))
    generator = np.random.default_rng(seed)
    count = len(a[0].images)
    for row in range(resamples):
        weights = draw(generator, count)
        for run, scorer in enumerate(scorers):
            ap = scorer(weights)
            drawn[row, run] = mean(ap.mean(0)), mean(ap[HALF])
        progress(row + 1)
    changes = drawn[:, 1] - drawn[:, 0]
    return Comparison(
        ap=_difference([mean(ap.mean(0)) for ap in points], changes[:, 0]),
        ap50=_difference([mean(ap[HALF]) for ap in points], changes[:, 1]),
        classes=list(zip(*(ap.mean(0).tolist() for ap in points), strict=True)),
        f1_a=counts_of(*a).f1,
        f1_b=counts_of(*b).f1,
        resamples=resamples,
    )


def draw(generator: np.random.Generator, images: int) -> Ints:
    """(I,) how often each image is in a resample."""
    return np.bincount(generator.integers(0, images, images), minlength=images)


def _difference(values: Sequence[float], changes: Floats) -> Difference:
    a, b = values
    known = changes[~np.isnan(changes)]
    low, high = np.percentile(known, INTERVAL).tolist() if known.size else (float("nan"), float("nan"))
    return Difference(a, b, low, high)


class _Scorer:
    """(T, K) AP of a run with a weight for each image."""

    def __init__(self, columns: Columns, matches: Matches) -> None:
        self._columns, self._matches = columns, matches
        self._ranking = Ranking.of(columns.found.labels, columns.found.scores, len(columns.classes))

    def __call__(self, weights: Ints | None) -> Floats:
        objects, found = self._columns.objects, self._columns.found
        per_object = None if weights is None else weights[objects.images]
        counts = objects_by_class(objects.labels, ~objects.ignored, len(self._columns.classes), per_object)
        per_found = None if weights is None else weights[found.images].astype(np.float64)
        return average_precisions(self._ranking, self._matches.right, ~self._matches.ignored, counts, per_found)
