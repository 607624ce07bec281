"""VOC's metric against cases worked out by hand, and against a second computation in plain Python and fractions."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from det_core.contracts import DetectionDataset, Sample
from det_core.errors import DataError
from det_core.evaluation.metric_config import CocoEvaluatorConfig, VocEvaluatorConfig
from det_core.evaluation.voc_metric import VocEvaluator, area_ap, points_ap
from det_core.structures import Classes, Detections

Box = tuple[int, int, int, int]
Truth = tuple[int, Box, bool]  # label, box xyxy, difficult
Found = tuple[int, Box, float]  # label, box xyxy, score
NAMES = ("cat", "dog", "elk")
IDS = (10, 20, 40)  # of images 0, 1, 2


class Made(DetectionDataset):
    """Objects given in code, a list for each image."""

    def __init__(self, truth: list[list[Truth]], names: tuple[str, ...] = NAMES) -> None:
        self.name, self.skipped, self.truth = "made", [], truth
        self.classes = Classes(names=names, ids=tuple(2 * i + 1 for i in range(len(names))))
        self.image_ids = np.array(IDS[: len(truth)], np.int64)
        self.sizes = np.full((len(truth), 2), 100, np.int64)

    def file(self, index: int) -> str:
        return f"{index}.jpg"

    def load(self, index: int) -> Sample:
        raise NotImplementedError

    def ground_truth(self) -> dict[str, Any]:
        rows = [(image, *row) for image, rows in zip(self.image_ids.tolist(), self.truth, strict=True) for row in rows]
        return {
            "info": {},
            "categories": [{"id": i, "name": n} for i, n in zip(self.classes.ids, self.classes.names, strict=True)],
            "images": [{"id": i, "width": 100, "height": 100, "file_name": ""} for i in self.image_ids.tolist()],
            "annotations": [
                {
                    "id": number,
                    "image_id": image,
                    "category_id": self.classes.ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(difficult),
                }
                for number, (image, label, (x1, y1, x2, y2), difficult) in enumerate(rows, 1)
            ],
        }


def detections(found: list[Found]) -> Detections:
    return Detections(
        boxes=torch.tensor([box for _, box, _ in found], dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([score for _, _, score in found], dtype=torch.float64),
        labels=torch.tensor([label for label, _, _ in found], dtype=torch.int64),
    )


def evaluated(truth: list[list[Truth]], found: list[list[Found]], **settings: Any) -> Any:
    judge = VocEvaluatorConfig(**settings).build(Made(truth))
    assert isinstance(judge, VocEvaluator)
    records = [r for image, rows in zip(IDS, found, strict=False) for r in judge.encode(image, detections(rows))]
    return judge.compute(json.loads(json.dumps(records)))


def dog(*corners: int, difficult: bool = False) -> Truth:
    return 1, corners, difficult  # type: ignore[return-value]


def saw(score: float, *corners: int, label: int = 1) -> Found:
    return label, corners, score  # type: ignore[return-value]


A, B, C = (0, 0, 10, 10), (50, 50, 60, 60), (0, 50, 10, 60)


def ap(truth: list[list[Truth]], found: list[list[Found]], **settings: Any) -> tuple[float, float]:
    values = evaluated(truth, found, **settings).per_class["dog"]
    return values["voc_ap"], values["voc_ap11"]


def test_all_found() -> None:
    result = evaluated([[dog(*A), dog(*B)], [dog(*A)]], [[saw(0.9, *A), saw(0.8, *B)], [saw(0.7, *A)]])
    assert result.metrics == {"voc_map": 1.0, "voc_map11": pytest.approx(1.0)}


def test_a_curve_by_hand() -> None:
    """Right, wrong, right, wrong of four objects: recalls .25 .25 .5 .5, precisions 1, 1/2, 2/3, 1/2.

    Made monotonic, 1 up to recall .25 and 2/3 up to .5. Of the 11 points, 0, .1, .2 see 1 and .3, .4, .5 see 2/3.
    """
    truth = [[dog(*A), dog(*B), dog(*C)], [dog(*A)]]
    found = [[saw(0.9, *A), saw(0.8, 80, 0, 90, 10), saw(0.7, *B)], [saw(0.6, *B)]]
    assert ap(truth, found) == pytest.approx((0.25 * 1 + 0.25 * 2 / 3, (3 * 1 + 3 * 2 / 3) / 11))


def test_a_low_precision_is_lifted_by_a_later_one() -> None:
    truth = [[dog(*A), dog(*B)]]
    found = [[saw(0.9, 80, 0, 90, 10), saw(0.8, *A), saw(0.7, *B)]]  # precisions 0, 1/2, 2/3
    assert ap(truth, found) == pytest.approx((2 / 3, 2 / 3))


def test_an_object_is_found_once() -> None:
    """The second detection of an object is wrong, though another object would be near enough."""
    truth = [[dog(*A), dog(0, 0, 10, 16)]]
    found = [[saw(0.9, *A), saw(0.8, 0, 0, 10, 11)]]  # both overlap the first most: IoU 1 and 10/11, against 11/16
    assert ap(truth, found) == pytest.approx((0.5, 6 / 11))


def test_the_order_is_that_of_scores_over_all_images() -> None:
    truth = [[dog(*A)], [dog(*A)]]
    assert ap(truth, [[saw(0.5, *A)], [saw(0.9, *B), saw(0.8, *A)]])[0] == pytest.approx(2 / 3)
    assert ap(truth, [[saw(0.95, *A)], [saw(0.9, *B), saw(0.8, *A)]])[0] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_same_scores_go_in_the_order_of_images_whoever_had_them() -> None:
    data = Made([[dog(*A)], [dog(*A)]])
    judge = VocEvaluatorConfig().build(data)
    parts = [judge.encode(10, detections([saw(0.5, *B)])), judge.encode(20, detections([saw(0.5, *A)]))]
    values = [judge.compute([*a, *b]).metrics["voc_map"] for a, b in (parts, parts[::-1])]
    assert values == [0.25, 0.25]


def test_difficult_objects_count_neither_way() -> None:
    truth = [[dog(*A, difficult=True), dog(*B)]]
    assert ap(truth, [[saw(0.9, *A), saw(0.8, *A), saw(0.7, *B)]])[0] == 1.0
    assert ap(truth, [[saw(0.9, *C), saw(0.7, *B)]])[0] == 0.5
    assert ap(truth, [[saw(0.9, *A)]]) == (0, 0)
    assert all(math.isnan(value) for value in ap([[dog(*A, difficult=True)]], [[saw(0.9, *B)]]))


def test_a_detection_belongs_to_the_object_it_overlaps_most_difficult_or_not() -> None:
    truth = [[dog(0, 0, 10, 10), dog(0, 0, 10, 14, difficult=True)]]
    assert ap(truth, [[saw(0.9, 0, 0, 10, 13)]]) == (0, 0)  # the difficult one's, so it does not count


def test_the_threshold_belongs_to_what_is_right() -> None:
    truth = [[dog(0, 0, 10, 10)]]
    assert ap(truth, [[saw(0.9, 0, 0, 10, 5)]])[0] == 1  # IoU .5 exactly: no pixel is added to sides
    assert ap(truth, [[saw(0.9, 0, 0, 10, 4)]])[0] == 0
    assert ap(truth, [[saw(0.9, 0, 0, 10, 4)]], iou=0.4)[0] == 1
    assert ap(truth, [[saw(0.9, 0, 0, 10, 5)]], iou=0.51)[0] == 0
    assert ap(truth, [[saw(0.9, 5, 5, 5, 5)]])[0] == 0


def test_classes_do_not_see_each_other() -> None:
    result = evaluated([[dog(*A), (0, A, False)]], [[saw(0.9, *A, label=0), saw(0.8, *A, label=2)]])
    assert result.per_class["cat"] == {"voc_ap": 1, "voc_ap11": pytest.approx(1)}
    assert result.per_class["dog"] == {"voc_ap": 0, "voc_ap11": 0}


def test_classes_without_objects_are_left_out_of_the_mean() -> None:
    result = evaluated([[dog(*A), (0, A, True)]], [[saw(0.9, *A), saw(0.8, *A, label=2)]])
    assert result.metrics == {"voc_map": 1.0, "voc_map11": pytest.approx(1.0)}
    assert math.isnan(result.per_class["cat"]["voc_ap"])
    assert math.isnan(result.per_class["elk"]["voc_ap11"])
    nothing = evaluated([[]], [[saw(0.9, *A)]])
    assert all(math.isnan(value) for value in nothing.metrics.values())
    assert "n/a" in nothing.table


def test_no_detections() -> None:
    assert evaluated([[dog(*A)]], [[]]).metrics == {"voc_map": 0, "voc_map11": 0}


@pytest.mark.parametrize("count", [10, 30, 70])
def test_recalls_of_whole_tenths_reach_their_point(count: int) -> None:
    """The devkit compares fractions, of which .3 is less than the third multiple of .1."""
    for found in range(count + 1):
        right = np.ones(found, np.bool_)
        points = 1 + found * 10 // count if found else 0
        assert points_ap(right, count) == pytest.approx(points / 11)
        assert area_ap(right, count) == pytest.approx(found / count)


def test_table() -> None:
    truth = [[dog(*A), dog(*B), (0, A, False)]]
    table = evaluated(truth, [[saw(0.9, *A), saw(0.9, *A, label=0)]], iou=0.75).table
    assert "VOC metrics at IoU 0.75 (percent)" in table
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if "│" in line]
    assert ["cat", "100.0", "100.0", "1"] in rows
    assert ["dog", "50.0", "54.5", "2"] in rows
    assert ["elk", "n/a", "n/a", "0"] in rows
    assert ["mean", "75.0", "77.3", "3"] in rows
    assert max(map(len, table.splitlines())) <= 80
    many = Made([[dog(*A)]], names=tuple(f"class {i}" for i in range(21)))
    assert "class 3" not in VocEvaluatorConfig().build(many).compute([]).table


def test_labels_without_a_class() -> None:
    with pytest.raises(DataError, match=r"the detector gives label 3, but the data set has 3 classes \(labels 0..2\)"):
        VocEvaluatorConfig().build(Made([[]])).encode(10, detections([saw(0.9, *A, label=3)]))


def test_records_of_other_images_are_left_out() -> None:
    judge = VocEvaluatorConfig().build(Made([[dog(*A)]]))
    records = [*judge.encode(10, detections([saw(0.8, *A)])), *judge.encode(99, detections([saw(0.9, *B)]))]
    assert judge.compute(records).metrics["voc_map"] == 1


@pytest.mark.parametrize("value", [0.0, 1.1])
def test_values_are_checked(value: float) -> None:
    with pytest.raises(ValueError, match="iou"):
        VocEvaluatorConfig(iou=value)


def test_metric_names_are_what_is_measured() -> None:
    assert set(VocEvaluatorConfig().metric_names()) == set(evaluated([[dog(*A)]], [[]]).metrics)


# The second computation: one detection at a time, fractions, and curves as they are defined.


def overlap(a: Box, b: Box) -> Fraction:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = width * height if width > 0 and height > 0 else 0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return Fraction(common, union) if union else Fraction(0)


def curve(
    truth: list[list[Truth]], found: list[list[Found]], label: int, iou: Fraction
) -> list[tuple[Fraction, Fraction]]:
    """(recall, precision) after each detection that counts."""
    total = sum(1 for rows in truth for c, _, difficult in rows if c == label and not difficult)
    queue = [(image, box, score) for image, rows in enumerate(found) for c, box, score in rows if c == label]
    queue.sort(key=lambda row: -row[2])  # stable
    taken: set[tuple[int, int]] = set()
    hits, misses, points = 0, 0, []
    for image, box, _ in queue:
        nearest, most = None, Fraction(-1)
        for place, (c, other, difficult) in enumerate(truth[image]):
            if c == label and overlap(box, other) > most:
                nearest, most = (place, difficult), overlap(box, other)
        if nearest is None or most < iou:
            misses += 1
        elif nearest[1]:
            continue
        elif (image, nearest[0]) in taken:
            misses += 1
        else:
            taken.add((image, nearest[0]))
            hits += 1
        points.append((Fraction(hits, total) if total else Fraction(0), Fraction(hits, hits + misses)))
    return points


def precision_at(points: list[tuple[Fraction, Fraction]], recall: Fraction) -> Fraction:
    return max((p for r, p in points if r >= recall), default=Fraction(0))


def plain_ap(truth: list[list[Truth]], found: list[list[Found]], label: int, iou: Fraction) -> tuple[Any, Any]:
    total = sum(1 for rows in truth for c, _, difficult in rows if c == label and not difficult)
    if total == 0:
        return None, None
    points = curve(truth, found, label, iou)
    area = sum((precision_at(points, Fraction(k, total)) for k in range(1, total + 1)), Fraction(0)) / total
    return area, sum((precision_at(points, Fraction(k, 10)) for k in range(11)), Fraction(0)) / 11


corner = st.integers(0, 6)
boxes = st.tuples(corner, corner, st.integers(1, 6), st.integers(1, 6)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
objects = st.lists(st.tuples(st.integers(0, 2), boxes, st.booleans()), max_size=8)
guesses = st.lists(st.tuples(st.integers(0, 2), boxes, st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9])), max_size=12)
images = st.lists(st.tuples(objects, guesses), min_size=1, max_size=3)


@given(images=images, iou=st.sampled_from([Fraction(1, 4), Fraction(1, 2), Fraction(3, 4)]))
@settings(max_examples=400, deadline=None)
def test_a_second_computation_agrees(images: list[tuple[list[Truth], list[Found]]], iou: Fraction) -> None:
    truth, found = [t for t, _ in images], [f for _, f in images]
    result = evaluated(truth, found, iou=float(iou))
    expected = {name: plain_ap(truth, found, label, iou) for label, name in enumerate(NAMES)}
    for name, values in expected.items():
        for key, value in zip(("voc_ap", "voc_ap11"), values, strict=True):
            if value is None:
                assert math.isnan(result.per_class[name][key])
            else:
                assert result.per_class[name][key] == pytest.approx(float(value), abs=1e-12)
    for key, column in (("voc_map", 0), ("voc_map11", 1)):
        present = [float(values[column]) for values in expected.values() if values[0] is not None]
        if present:
            assert result.metrics[key] == pytest.approx(sum(present) / len(present), abs=1e-12)
        else:
            assert math.isnan(result.metrics[key])


def test_coco_metrics_take_the_same_data() -> None:
    """Difficult objects are crowd regions to COCO's metrics, and ignored by them, too."""
    judge = CocoEvaluatorConfig().build(Made([[dog(*A, difficult=True), dog(*B)]]))
    metrics = judge.compute(judge.encode(10, detections([saw(0.9, *A), saw(0.8, *B)]))).metrics
    assert metrics["box_ap50"] == pytest.approx(1)


def test_a_second_computation_agrees_on_many_detections() -> None:
    """More of an image than sorting in place by chance keeps in order."""
    random = np.random.default_rng(0)

    def box() -> Box:
        x, y, w, h = random.integers((0, 0, 10, 10), (60, 60, 40, 40)).tolist()
        return x, y, x + w, y + h

    truth: list[list[Truth]] = [[(1, box(), i % 5 == 0) for i in range(20)] for _ in IDS]
    found: list[list[Found]] = [[(1, box(), float(random.integers(50)) / 50) for _ in range(200)] for _ in IDS]
    area, points = plain_ap(truth, found, 1, Fraction(1, 2))
    assert 0.05 < area < 0.95
    assert ap(truth, found) == pytest.approx((float(area), float(points)), abs=1e-12)
