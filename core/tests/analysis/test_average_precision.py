"""Matching and AP against pycocotools."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from made_data import MadeDataset, box, pycocotools_precision, random_case

from det_core.analysis.analyse import analyse
from det_core.analysis.columns import columns_of
from det_core.errors import DetError


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("seed", range(6))
def test_ap_is_that_of_pycocotools(seed: int, kind: Literal["box", "mask"]):
    dataset, records = random_case(seed)
    np.testing.assert_allclose(
        analyse(dataset, records, kind).ap, pycocotools_precision(dataset, records, kind), atol=1e-12
    )


@pytest.mark.parametrize("seed", range(4))
def test_parts_contain_every_object_once(seed: int):
    dataset, records = random_case(seed, images=30)
    for breakdown in analyse(dataset, records).breakdowns:
        counted = sum(not r["iscrowd"] for r in dataset.records)
        assert sum(part.objects.sum() for part in breakdown.parts) == counted, breakdown.name


def test_ap_of_a_part_ignores_what_lies_outside():
    """A small object is found, a large one is not; a wrong detection is large."""
    truth = [box(1, 0, (10, 10, 40, 40)), box(2, 0, (10, 10, 150, 150))]
    found = [box(2, 0, (60, 60, 190, 190), score=0.9), box(1, 0, (10, 10, 40, 40), score=0.8)]
    result = analyse(MadeDataset(truth, images=2), found)
    small, medium, large = result.breakdowns[0].parts
    assert (small.ap, small.recall) == pytest.approx((1, 1))
    assert (large.ap, large.recall) == (0, 0)
    assert math.isnan(medium.ap)
    assert [part.objects.sum() for part in (small, medium, large)] == [1, 0, 1]


def test_classes_without_objects_and_images_without_detections():
    dataset = MadeDataset([box(1, 0, (10, 10, 50, 50))], images=3)
    result = analyse(dataset, [box(1, 0, (10, 10, 50, 50), score=0.7), box(2, 1, (0, 0, 9, 9), score=0.9)])
    assert result.ap[:, 0] == pytest.approx([1] * 10)
    assert np.isnan(result.ap[:, 1:]).all()
    assert result.objects.tolist() == [1, 0, 0]
    assert result.detections.tolist() == [1, 1, 0]


@pytest.mark.parametrize("truth", [[], [box(1, 0, (10, 10, 50, 50))]])
def test_no_detections(truth: list[dict[str, object]]):
    result = analyse(MadeDataset(truth, images=2), [])
    assert result.curve.threshold is None
    assert result.threshold == 0.5
    assert result.errors.count("missed") == len(truth)
    assert np.nan_to_num(result.ap).sum() == 0


def test_only_the_best_detections_of_a_class_in_an_image_count():
    records = [box(1, 0, (i, 0, i + 9, 9), score=i / 100) for i in range(1, 9)] + [box(1, 1, (0, 0, 9, 9), score=0.001)]
    found = columns_of(MadeDataset([], images=1), records, limit=3).found
    assert found.scores.tolist() == [0.08, 0.07, 0.06, 0.001]
    assert found.labels.tolist() == [0, 0, 0, 1]


def test_records_of_other_images_are_left_out_and_unknown_categories_refused():
    dataset = MadeDataset([], images=1)
    assert len(columns_of(dataset, [box(7, 0, (0, 0, 9, 9), score=0.5)]).found) == 0
    with pytest.raises(DetError, match="category 9, which the data set does not have"):
        columns_of(dataset, [box(1, 8, (0, 0, 9, 9), score=0.5)])


def test_missing_masks_are_refused():
    truth, found = box(1, 0, (0, 0, 9, 9)), box(1, 0, (0, 0, 9, 9), score=0.5)
    bare = {name: value for name, value in found.items() if name != "segmentation"}
    with pytest.raises(DetError, match="detections have none; compare boxes"):
        columns_of(MadeDataset([truth], images=1), [bare], "mask")
    del truth["segmentation"]
    with pytest.raises(DetError, match="an object of the ground truth has none; compare boxes"):
        columns_of(MadeDataset([truth], images=1), [found], "mask")


def test_areas_of_more_than_255_masks():
    """pycocotools' own `area` refuses them."""
    records = [box(1, 0, (0, 0, 10, 10 + i % 7), score=0.5) for i in range(300)]
    found = columns_of(MadeDataset([box(1, 0, (0, 0, 9, 9))], images=1), records, "mask", limit=1000).found
    assert sorted(found.areas.tolist()) == sorted(10.0 * (10 + i % 7) for i in range(300))
