"""Whether scores are probabilities of being right.

Letters: B bins, N detections.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from det_core.analysis.columns import Columns, Floats, Ints
from det_core.analysis.matching import HALF, Matches

BINS = 20


@frozen(eq=False)
class Calibration:
    """Bins of equal width of the score. edges (B + 1,); counts (B,); scores (B,) mean score and precision (B,) of the
    detections in a bin, nan if it is empty. error: the expected calibration error, nan without detections.
    """

    edges: Floats
    counts: Ints
    scores: Floats
    precision: Floats
    error: float


def calibration_of(columns: Columns, matches: Matches, bins: int = BINS) -> Calibration:
    """The reliability of scores at IoU .50 (Küppers et al., 2020, "Multivariate Confidence Calibration for Object
    Detection", section 3.1: precision in place of accuracy, of scores alone).

    The expected calibration error is the mean, over detections, of the difference between mean score and precision of
    their bin.
    """
    counted = ~matches.ignored[HALF]
    scores, right = columns.found.scores[counted], matches.right[HALF][counted]
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.ceil(scores * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    divisor = np.where(counts, counts, np.nan)
    means = np.bincount(which, scores, bins) / divisor
    precision = np.bincount(which, right, bins) / divisor
    error = float(np.nansum(counts * np.abs(means - precision)) / counts.sum()) if counts.sum() else float("nan")
    return Calibration(edges, counts, means, precision, error)
