"""Two runs side by side: the bootstrap against data that are drawn in fact."""

from __future__ import annotations

import numpy as np
import pytest
from made_data import MadeDataset, Record, pycocotools_precision, random_case

from det_core.analysis.analyse import analyse
from det_core.analysis.compare_runs import _Scorer, compare_runs, draw
from det_core.errors import DetError


def worse(records: list[Record], seed: int = 0) -> list[Record]:
    random = np.random.default_rng(seed)
    return [{**r, "score": r["score"] * random.uniform(0.2, 1)} for r in records if random.random() < 0.8]


def drawn(dataset: MadeDataset, records: list[Record], weights: np.ndarray) -> tuple[MadeDataset, list[Record]]:
    """The data set of a resample, its images copied as often as they are drawn."""
    truth, found, number = [], [], 0
    for image, times in enumerate(weights.tolist(), start=1):
        for _ in range(times):
            number += 1
            truth += [{**r, "image_id": number} for r in dataset.records if r["image_id"] == image]
            found += [{**r, "image_id": number} for r in records if r["image_id"] == image]
    return MadeDataset(truth, number), found


@pytest.mark.parametrize("seed", range(4))
def test_ap_of_a_resample_is_that_of_copied_images(seed: int):
    dataset, records = random_case(seed)
    result = analyse(dataset, records)
    weights = draw(np.random.default_rng(seed), 12)
    assert weights.sum() == 12
    ap = _Scorer(result.columns, result.matches)(weights)
    np.testing.assert_allclose(ap, pycocotools_precision(*drawn(dataset, records, weights)), atol=1e-12)


def test_interval_is_that_of_a_direct_bootstrap():
    dataset, records = random_case(5)
    runs = [records, worse(records)]
    results = [analyse(dataset, run) for run in runs]
    comparison = compare_runs(*((r.columns, r.matches, r.threshold) for r in results), resamples=30, seed=7)
    generator = np.random.default_rng(7)
    changes = []
    for _ in range(30):
        weights = draw(generator, 12)
        a, b = (np.nanmean(pycocotools_precision(*drawn(dataset, run, weights)).mean(0)) for run in runs)
        changes.append(b - a)
    assert (comparison.ap.low, comparison.ap.high) == pytest.approx(np.percentile(changes, (2.5, 97.5)))
    assert comparison.ap.low < comparison.ap.value < comparison.ap.high
    assert comparison.ap.value == pytest.approx(np.nanmean(results[1].ap) - np.nanmean(results[0].ap))


def test_a_run_beside_itself_does_not_differ():
    dataset, records = random_case(2)
    result = analyse(dataset, records)
    run = (result.columns, result.matches, result.threshold)
    comparison = compare_runs(run, run, resamples=5)
    assert (comparison.ap.value, comparison.ap.low, comparison.ap.high) == (0, 0, 0)
    assert (comparison.f1_a == comparison.f1_b).all()
    assert comparison.resamples == 5


def test_runs_on_other_images_are_refused():
    results = [analyse(*random_case(1, images=images)) for images in (5, 6)]
    with pytest.raises(DetError, match="not on the same images and classes"):
        compare_runs(*((r.columns, r.matches, r.threshold) for r in results))
