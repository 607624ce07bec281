"""All numbers of an analysis, from a data set and the detections of a run on it.

Letters: K classes, N detections, T IoU thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from attrs import frozen

from det_core.analysis.average_precision import Ranking, objects_by_class, precisions
from det_core.analysis.breakdown import Breakdown, breakdowns_of
from det_core.analysis.calibration import Calibration, calibration_of
from det_core.analysis.columns import Columns, Floats, Ints, Kind, columns_of
from det_core.analysis.confusion import Confusion, confusion_of
from det_core.analysis.errors import Costs, Errors, costs_of, find_errors
from det_core.analysis.matching import Matches, match
from det_core.analysis.score_curves import ScoreCurve, all_curves
from det_core.contracts import DetectionDataset

DEFAULT_THRESHOLD = 0.5  # where nothing is found, and so no threshold is better than another


@frozen(eq=False)
class Analysis:
    """The numbers of one kind of region: boxes or masks.

    precision (T, K, R): at each IoU threshold and recall level; nan for a class without objects. objects, detections,
    images (K,): objects that count, detections, and images with an object. curve, curves: over the score, of all
    classes and of each. threshold: the score of the confusion matrix.
    """

    columns: Columns
    matches: Matches
    precision: Floats
    objects: Ints
    detections: Ints
    images: Ints
    errors: Errors
    costs: Costs
    curve: ScoreCurve
    curves: list[ScoreCurve]
    threshold: float
    confusion: Confusion
    calibration: Calibration
    breakdowns: tuple[Breakdown, ...]

    @property
    def kind(self) -> Kind:
        """What IoUs are of: `box` or `mask`."""
        return self.columns.kind

    @property
    def ap(self) -> Floats:
        """(T, K) AP at each IoU threshold; nan for a class without objects."""
        return np.asarray(self.precision.mean(2), np.float64)


def analyse(
    dataset: DetectionDataset,
    records: Iterable[Mapping[str, Any]],
    kind: Kind = "box",
    *,
    threshold: float | None = None,
    limit: int = 100,
    class_agnostic: bool = False,
) -> Analysis:
    """Analyse detections on a data set.

    Args:
        dataset: with ground truth.
        records: in COCO's results format.
        kind: `box` or `mask`.
        threshold: score of the confusion matrix and of the counts of images; by default the one with the highest F1.
        limit: maximum detections per class in an image.
        class_agnostic: all classes count as one.

    Raises:
        DetError: as `columns_of`.
    """
    columns = columns_of(dataset, records, kind, limit, class_agnostic)
    matches = match(columns)
    errors = find_errors(columns, matches)
    classes, objects, found = len(columns.classes), columns.objects, columns.found
    counts = objects_by_class(objects.labels, ~objects.ignored, classes)
    ranking = Ranking.of(found.labels, found.scores, classes)
    curve, curves = all_curves(columns, matches)
    if threshold is None:
        threshold = curve.threshold if curve.threshold is not None else DEFAULT_THRESHOLD
    return Analysis(
        columns=columns,
        matches=matches,
        precision=precisions(ranking, matches.right, ~matches.ignored, counts),
        objects=counts.astype(np.int64),
        detections=np.bincount(found.labels, minlength=classes),
        images=_images_with(columns),
        errors=errors,
        costs=costs_of(columns, matches, errors),
        curve=curve,
        curves=curves,
        threshold=threshold,
        confusion=confusion_of(columns, matches, threshold),
        calibration=calibration_of(columns, matches),
        breakdowns=tuple(breakdowns_of(columns, matches)),
    )


def _images_with(columns: Columns) -> Ints:
    """(K,) number of images with an object of each class that counts."""
    objects = columns.objects
    pairs = np.unique(np.stack([objects.labels, objects.images])[:, ~objects.ignored], axis=1)
    return np.bincount(pairs[0], minlength=len(columns.classes))
