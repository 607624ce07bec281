"""Thresholds against brute force; the confusion matrix and calibration by hand."""

from __future__ import annotations

import numpy as np
import pytest
from made_data import MadeDataset, box, random_case

from det_core.analysis.analyse import analyse
from det_core.analysis.score_curves import score_curve


@pytest.mark.parametrize("seed", range(8))
def test_best_threshold_against_brute_force(seed: int):
    """Every threshold is tried: the detections above it are analysed again from the beginning."""
    dataset, records = random_case(seed)
    result = analyse(dataset, records)
    objects = sum(not r["iscrowd"] for r in dataset.records)

    def f1(threshold: float) -> float:
        kept = analyse(dataset, [r for r in records if r["score"] > threshold])
        right, wrong = int(kept.matches.right[0].sum()), int(kept.matches.wrong().sum())
        return 2 * right / (right + wrong + objects)

    scores = sorted(r["score"] for r in records)
    best = max(f1(t) for t in [0.0, *scores])
    assert result.curve.threshold is not None
    assert f1(result.curve.threshold) == pytest.approx(best)
    assert result.curve.f1.max() == pytest.approx(best)
    assert result.curve.at(result.curve.threshold)[2] == pytest.approx(best)


@pytest.mark.parametrize("seed", range(3))
def test_curves_of_classes_are_those_of_the_class_alone(seed: int):
    dataset, records = random_case(seed)
    result = analyse(dataset, records)
    for label, curve in enumerate(result.curves):
        truth = [r for r in dataset.records if r["category_id"] == label + 1]
        alone = analyse(MadeDataset(truth, 12), [r for r in records if r["category_id"] == label + 1]).curve
        np.testing.assert_allclose(curve.f1, alone.f1)
        assert (curve.threshold, curve.objects) == (alone.threshold, alone.objects)


def test_equal_scores_are_kept_or_dropped_together():
    curve = score_curve(np.array([0.5, 0.9, 0.5]), np.array([True, True, False]), objects=2)
    assert curve.scores.tolist() == [0.9, 0.5]
    assert curve.precision.tolist() == [1, 2 / 3]
    assert curve.recall.tolist() == [0.5, 1]
    assert curve.threshold == 0.25
    assert curve.at(0.7) == (1, 0.5, 2 / 3)


def test_curve_of_nothing():
    curve = score_curve(np.zeros(0), np.zeros(0, np.bool_), objects=3)
    assert curve.threshold is None
    assert curve.at(0.5)[1:] == (0, 0)
    assert score_curve(np.array([0.4]), np.array([False]), objects=3).threshold is None


def test_confusion_matrix_by_hand():
    truth = [
        box(1, 0, (0, 0, 40, 40)),
        box(1, 1, (60, 0, 100, 40)),
        box(1, 2, (0, 60, 40, 100)),
        box(2, 0, (0, 0, 40, 40), iscrowd=1),
    ]
    found = [
        box(1, 0, (0, 0, 40, 40), score=0.9),  # right
        box(1, 1, (0, 0, 40, 40), score=0.95),  # on the same object: background, since its class has found it
        box(1, 0, (60, 0, 100, 40), score=0.8),  # b taken for a
        box(2, 0, (0, 0, 40, 40), score=0.9),  # in a crowd region
        box(2, 2, (100, 100, 140, 140), score=0.7),  # background
        box(1, 2, (0, 60, 40, 100), score=0.2),  # below the threshold: missed
    ]
    confusion = analyse(MadeDataset(truth, images=2), found, threshold=0.5).confusion
    assert confusion.counts.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 0]]
    cell = (confusion.truths == 1) & (confusion.detected == 0)
    assert confusion.images[cell].tolist() == [0]
    assert confusion.objects[cell].tolist() == [1]
    assert confusion.found[cell].tolist() == [2]


@pytest.mark.parametrize("seed", range(4))
def test_confusion_matrix_counts_every_object_and_detection_once(seed: int):
    dataset, records = random_case(seed)
    result = analyse(dataset, records, threshold=0.3)
    rows = result.confusion.counts[:-1].sum(1)
    assert rows.tolist() == result.objects.tolist()
    kept = (result.columns.found.scores > 0.3) & ~result.matches.ignored[0]
    assert result.confusion.counts[:, :-1].sum() == kept.sum()
    assert np.diag(result.confusion.counts)[:-1].sum() == (result.matches.right[0] & kept).sum()


def test_calibration_by_hand():
    truth = [box(image, 0, (0, 0, 40, 40)) for image in (1, 2, 3)]
    found = [
        box(1, 0, (0, 0, 40, 40), score=0.92),
        box(2, 0, (0, 0, 40, 40), score=0.94),
        box(3, 0, (0, 0, 40, 40), score=0.2),
        box(3, 1, (0, 0, 40, 40), score=0.18),
    ]
    result = analyse(MadeDataset(truth, images=3), found).calibration
    filled = result.counts > 0
    assert result.edges[:-1][filled] == pytest.approx([0.15, 0.9])
    assert result.scores[filled] == pytest.approx([0.19, 0.93])
    assert result.precision[filled].tolist() == [0.5, 1]
    assert result.error == pytest.approx((2 * 0.31 + 2 * 0.07) / 4)
