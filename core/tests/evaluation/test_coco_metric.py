"""COCO's metrics against cases worked out by hand, and the two libraries against each other."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch
from attrs import evolve
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import box_iou

from det_core.compressed_masks import bitmaps_of, encode_masks
from det_core.contracts import DetectionDataset, Sample
from det_core.data.data_config import SampleConfig
from det_core.errors import DataError, DetError
from det_core.evaluation.coco_metric import CocoEvaluator, choose_backend
from det_core.evaluation.metric_config import CocoEvaluatorConfig
from det_core.structures import Classes, Detections

BACKENDS = ("pycocotools", "faster-coco-eval")


class Made(DetectionDataset):
    """Boxes given in code; masks fill them."""

    def __init__(self, boxes: dict[int, list[tuple[int, list[float], int]]], size: int = 200) -> None:
        self.name, self.has_masks, self.skipped = "made", True, []
        self.classes = Classes(names=("cat", "dog", "elk"), ids=(2, 5, 9))
        self.image_ids = np.array(list(boxes), np.int64)
        self.sizes = np.full((len(boxes), 2), size, np.int64)
        self.boxes, self.size = boxes, size

    def file(self, index: int) -> str:
        return f"{self.image_ids[index]}.png"

    def load(self, index: int) -> Sample:
        raise NotImplementedError

    def ground_truth(self) -> dict[str, Any]:
        rows = [(image, *row) for image, rows in self.boxes.items() for row in rows]
        annotations = [
            {
                "id": i,
                "image_id": image,
                "category_id": self.classes.ids[label],
                "bbox": [x, y, x2 - x, y2 - y],
                "area": (x2 - x) * (y2 - y),
                "iscrowd": crowd,
                "segmentation": [[x, y, x2, y, x2, y2, x, y2]],
            }
            for i, (image, label, (x, y, x2, y2), crowd) in enumerate(rows, start=1)
        ]
        return {
            "info": {},
            "categories": [{"id": i, "name": n} for i, n in zip(self.classes.ids, self.classes.names)],
            "images": [{"id": i, "height": self.size, "width": self.size, "file_name": "x"} for i in self.boxes],
            "annotations": annotations,
        }


def found(*rows: tuple[int, list[float], float], size: int = 200) -> Detections:
    masks = torch.zeros(len(rows), size, size, dtype=torch.bool)
    for mask, (_, (x, y, x2, y2), _) in zip(masks, rows, strict=True):
        mask[int(y) : int(y2), int(x) : int(x2)] = True
    return Detections(
        boxes=torch.tensor([r[1] for r in rows]).reshape(-1, 4).float(),
        scores=torch.tensor([r[2] for r in rows]),
        masks=masks,
        labels=torch.tensor([r[0] for r in rows], dtype=torch.int64),
    )


DATA = Made(
    {
        1: [(0, [10, 10, 30, 30], 0), (1, [50, 50, 150, 150], 0)],
        2: [(0, [0, 0, 50, 50], 0)],
        3: [(0, [20, 20, 180, 180], 1)],
        4: [],
    }
)
PERFECT = {1: found((0, [10, 10, 30, 30], 0.9), (1, [50, 50, 150, 150], 0.8)), 2: found((0, [0, 0, 50, 50], 0.7))}

Kind = Literal["box", "mask", "proposal"]


def evaluator(*kinds: Kind, data: DetectionDataset = DATA, backend: Any = "pycocotools", **more: Any) -> CocoEvaluator:
    made = CocoEvaluatorConfig(kinds=kinds, backend=backend, **more).build(data)
    assert isinstance(made, CocoEvaluator)
    return made


def metrics(made: CocoEvaluator, detections: dict[int, Detections]) -> dict[str, float]:
    return made.compute([r for i, d in detections.items() for r in made.encode(i, d)]).metrics


@pytest.mark.parametrize("backend", BACKENDS)
def test_perfect_detections(backend: str) -> None:
    if backend == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    values = metrics(evaluator("box", "mask", "proposal", backend=backend), PERFECT)
    for name in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100", "ar_small"):
        assert values[f"box_{name}"] == pytest.approx(1.0)
        assert values[f"mask_{name}"] == pytest.approx(1.0)
    for name in ("ar100", "ar300", "ar1000", "ar1000_small", "ar1000_medium", "ar1000_large"):
        assert values[name] == pytest.approx(1.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_miss_by_hand(backend: str) -> None:
    """cat: one of two found, so precision is 1 up to recall .5: 51 of the 101 recall levels. dog: found."""
    if backend == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    made = evaluator("box", backend=backend)
    values = metrics(made, {1: PERFECT[1]})
    assert values["box_ap50"] == pytest.approx((51 / 101 + 1) / 2)
    assert values["box_ap"] == pytest.approx((51 / 101 + 1) / 2)
    assert values["box_ar100"] == pytest.approx((0.5 + 1) / 2)
    assert values["box_ap_small"] == pytest.approx(1.0)
    assert values["box_ap_medium"] == pytest.approx(0.0)
    result = made.compute(made.encode(1, PERFECT[1]))
    assert result.per_class["cat"]["box_ap"] == pytest.approx(51 / 101)
    assert result.per_class["dog"]["box_ap50"] == pytest.approx(1.0)
    assert math.isnan(result.per_class["elk"]["box_ap"])


def test_a_false_positive_by_hand() -> None:
    """A wrong dog of higher score halves the precision at every recall."""
    wrong = found((0, [10, 10, 30, 30], 0.9), (1, [50, 50, 150, 150], 0.8), (1, [0, 100, 40, 140], 0.85))
    values = metrics(evaluator("box"), {**PERFECT, 1: wrong})
    assert values["box_ap50"] == pytest.approx((1 + 0.5) / 2)


def test_iou_threshold_by_hand() -> None:
    """A dog box of IoU .64 counts at .50, .55 and .60."""
    loose = found((0, [10, 10, 30, 30], 0.9), (1, [50, 50, 150, 114], 0.8))
    values = metrics(evaluator("box", "mask"), {**PERFECT, 1: loose})
    for kind in ("box", "mask"):
        assert values[f"{kind}_ap"] == pytest.approx((1 + 0.3) / 2)
        assert values[f"{kind}_ap75"] == pytest.approx(0.5)


def test_crowd_is_neither_object_nor_mistake() -> None:
    in_crowd = {**PERFECT, 3: found((0, [30, 30, 60, 60], 0.99), (0, [90, 90, 120, 120], 0.98))}
    assert metrics(evaluator("box"), in_crowd)["box_ap"] == pytest.approx(1.0)


def test_proposals_know_no_classes() -> None:
    boxes = {1: found((0, [50, 50, 150, 150], 0.5)), 2: found((0, [0, 0, 50, 50], 0.1))}
    values = metrics(evaluator("proposal"), boxes)
    assert values["ar1000"] == pytest.approx(2 / 3)  # of three objects, the crowd not among them
    assert values["ar1000_large"] == pytest.approx(1.0)
    assert values["ar1000_small"] == pytest.approx(0.0)


def test_proposals_are_cut_at_their_limits() -> None:
    other = [(0, [160.0, 160.0, 170.0, 170.0], 1 - i / 1000) for i in range(200)]
    values = metrics(evaluator("proposal"), {2: found(*other, (0, [0, 0, 50, 50], 0.01))})
    assert values["ar100"] == pytest.approx(0.0)
    assert values["ar300"] == pytest.approx(1 / 3)


def crowded(seed: int) -> tuple[Made, dict[int, Detections]]:
    """Two images with objects of three classes and a crowd, and 1200 proposals each, near objects and anywhere."""
    random = np.random.default_rng(seed)

    def boxes(count: int) -> list[list[float]]:
        corner, size = random.uniform(0, 150, (count, 2)), random.uniform(8, 50, (count, 2))
        return np.concatenate([corner, corner + size], 1).tolist()

    data = Made({i: [(k % 3, box, int(k == 0)) for k, box in enumerate(boxes(12))] for i in (1, 2)})
    proposals = {}
    for number, objects in data.boxes.items():
        near = np.array([o[1] for o in objects] * 8) + random.normal(0, 3, (96, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        given = torch.from_numpy(np.concatenate([near, boxes(1200 - len(near))]))
        proposals[number] = Detections(
            boxes=given, scores=torch.from_numpy(random.permutation(1200) / 1200), labels=torch.zeros(1200).long()
        )
    return data, proposals


def direct_recall(data: Made, proposals: dict[int, Detections], limit: int) -> float:
    """Mean over IoU thresholds of the share of objects found: each box, best first, takes the best object left."""
    shares = []
    for threshold in np.linspace(0.5, 0.95, 10):
        taken = total = 0
        for number, found_here in proposals.items():
            objects = torch.tensor([box for _, box, crowd in data.boxes[number] if not crowd], dtype=torch.float64)
            best = found_here.boxes[found_here.scores.argsort(descending=True)[:limit]]
            overlaps = box_iou(best, objects)
            for row in overlaps:
                value, at = row.max(0)
                if value >= threshold:
                    overlaps[:, at] = -1
                    taken += 1
            total += len(objects)
        shares.append(taken / total)
    return float(np.mean(shares))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("backend", BACKENDS)
def test_recall_of_proposals_is_that_of_a_direct_computation(backend: str, seed: int) -> None:
    if backend == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    data, proposals = crowded(seed)
    values = metrics(evaluator("proposal", data=data, backend=backend), proposals)
    expected = {limit: direct_recall(data, proposals, limit) for limit in (100, 300, 1000)}
    assert len(set(expected.values())) == 3
    assert {limit: values[f"ar{limit}"] for limit in expected} == pytest.approx(expected, abs=1e-12)


def test_max_detections() -> None:
    other = [(0, [160.0, 160.0, 170.0, 170.0], 0.95)] * 4
    many = {**PERFECT, 2: found(*other, (0, [0, 0, 50, 50], 0.7))}
    assert metrics(evaluator("box", max_detections=5), many)["box_ar5"] == pytest.approx(1.0)
    values = metrics(evaluator("box", max_detections=4), many)
    assert values["box_ar4"] == pytest.approx(0.75)
    assert "box_ar10" not in values


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections(backend: str) -> None:
    if backend == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    made = evaluator("box", "mask", "proposal", backend=backend)
    assert made.encode(4, found()) == []
    result = made.compute([])
    assert all(value == 0 for value in result.metrics.values())
    assert result.per_class["cat"] == {"box_ap": 0, "box_ap50": 0, "mask_ap": 0, "mask_ap50": 0}


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_ground_truth_is_not_available(backend: str) -> None:
    if backend == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    result_of = evaluator("box", "proposal", data=Made({1: [], 2: []}), backend=backend)
    result = result_of.compute(result_of.encode(1, PERFECT[1]))
    assert math.isnan(result.metrics["box_ap"])
    assert math.isnan(result.metrics["ar1000"])
    assert "n/a" in result.table


def test_table() -> None:
    made = evaluator("box", "mask", "proposal")
    text = made.compute(made.encode(1, PERFECT[1])).table
    assert max(map(len, text.splitlines())) <= 80
    for part in ("AP50", "box", "mask", "AR@1000", "cat", "100.0", "75.2", "n/a"):
        assert part in text
    many = Made({1: [(0, [10, 10, 30, 30], 0)]})
    many.classes = Classes.numbered(40)
    assert "class 3" not in evaluator("box", data=many).compute([]).table


def test_classes_of_one_name_are_told_apart() -> None:
    twins = Made({1: [(0, [10, 10, 30, 30], 0)]})
    twins.classes = evolve(twins.classes, names=("cat", "cat", "elk"))
    assert list(evaluator("box", data=twins).compute([]).per_class) == ["cat (id 2)", "cat (id 5)", "elk"]


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    metrics(evaluator("box", "mask"), PERFECT)
    assert capsys.readouterr().out == ""


def test_records_are_json_with_the_files_ids() -> None:
    records = evaluator("box", "mask").encode(1, PERFECT[1])
    assert json.loads(json.dumps(records)) == records
    assert records[1]["category_id"] == 5
    assert records[1]["bbox"] == [50, 50, 100, 100]
    assert records[1]["segmentation"]["size"] == [200, 200]
    assert "segmentation" not in evaluator("box").encode(1, PERFECT[1])[0]


def test_masks_encoded() -> None:
    from pycocotools import mask as coco_mask

    masks = torch.rand(3, 17, 23, generator=torch.Generator().manual_seed(0)) > 0.5
    for code, mask in zip(encode_masks(masks), masks, strict=True):
        assert np.array_equal(coco_mask.decode(code), mask.numpy())
    assert encode_masks(masks[:0]) == []


def test_records_of_other_images_are_left_out() -> None:
    made = evaluator("box")
    records = [r for i, d in PERFECT.items() for r in made.encode(i, d)] + made.encode(77, PERFECT[1])
    assert made.compute(records).metrics["box_ap"] == pytest.approx(1.0)


def noisy(data: DetectionDataset, seed: int) -> dict[int, Detections]:
    """Ground truth shaken, with wrong boxes between: something that gives every metric a value of its own."""
    random = torch.Generator().manual_seed(seed)
    detections = {}
    for index in range(len(data)):
        sample = data.load(index)
        assert sample.masks is not None
        order = torch.randperm(len(sample.boxes), generator=random)[: max(1, len(sample.boxes) * 4 // 5)]
        boxes = sample.boxes[order] + torch.randn(len(order), 4, generator=random) * 1.5
        boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        wrong = boxes[:3] + 40
        masks = torch.roll(bitmaps_of(sample.masks)[order], 1, 2).bool()
        detections[sample.image_id] = Detections(
            boxes=torch.cat([boxes, wrong]),
            scores=torch.rand(len(boxes) + len(wrong), generator=random),
            labels=torch.zeros(len(boxes) + len(wrong), dtype=torch.int64),
            masks=torch.cat([masks, masks[:3]]),
        )
    return detections


def test_faster_coco_eval_gives_the_same_numbers() -> None:
    pytest.importorskip("faster_coco_eval")
    data = SampleConfig(split="train").build("", masks=True)
    detections = noisy(data, 0)
    slow, fast = (metrics(evaluator("box", "mask", "proposal", data=data, backend=b), detections) for b in BACKENDS)
    assert slow.keys() == fast.keys()
    assert 0.1 < slow["box_ap"] < 0.9
    for name, value in slow.items():
        assert fast[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_numbers_are_those_of_cocos_own_summary() -> None:
    data = SampleConfig(split="train").build("", masks=True)
    made = evaluator("box", "mask", data=data)
    records = [r for i, d in noisy(data, 1).items() for r in made.encode(i, d)]
    ours = made.compute(records).metrics
    names = (
        "ap",
        "ap50",
        "ap75",
        "ap_small",
        "ap_medium",
        "ap_large",
        "ar1",
        "ar10",
        "ar100",
        "ar_small",
        "ar_medium",
        "ar_large",
    )
    for kind, iou_type in (("box", "bbox"), ("mask", "segm")):
        plain = [dict(r) for r in records]
        for record in plain:
            record.pop("bbox" if kind == "mask" else "segmentation")
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(data.annotation_file))  # type: ignore[attr-defined]
            evaluation = COCOeval(truth, truth.loadRes(plain), iou_type)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        expected = [math.nan if s == -1 else s for s in evaluation.stats]
        assert [ours[f"{kind}_{n}"] for n in names] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes_only = SampleConfig(split="val").build("")
    with pytest.raises(DataError, match="the data set was opened without masks; use `kinds: "):
        CocoEvaluatorConfig(kinds=("mask",)).build(boxes_only)
    with pytest.raises(DetError, match="the detector gives none; use `kinds: "):
        evaluator("mask").encode(
            1, Detections(boxes=torch.zeros(1, 4), scores=torch.ones(1), labels=torch.zeros(1, dtype=torch.int64))
        )
    with pytest.raises(DataError, match=r"the detector gives label 3, but the data set has 3 classes \(labels 0..2\)"):
        evaluator("box").encode(1, found((3, [0, 0, 1, 1], 0.5)))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DetError, match="faster-coco-eval is not installed; `pip install faster-coco-eval`"):
        choose_backend("faster-coco-eval")
    assert choose_backend("auto") == "pycocotools"


@pytest.mark.parametrize(
    "values",
    [{"kinds": ()}, {"kinds": ("box", "box")}, {"kinds": ("boxes",)}, {"backend": "other"}, {"max_detections": 0}],
)
def test_config_is_checked(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        CocoEvaluatorConfig(**values)


@pytest.mark.parametrize("kinds", [("box",), ("box", "mask"), ("proposal",)])
@pytest.mark.parametrize("most", [5, 100])
def test_metrics_are_those_that_the_configuration_names(kinds: tuple[Any, ...], most: int) -> None:
    config = CocoEvaluatorConfig(kinds=kinds, max_detections=most)
    dataset = SampleConfig(split="val").build(masks=True)
    assert set(config.build(dataset).compute([]).metrics) == set(config.metric_names())


def numbered(first: int, images: Sequence[int] = (1, 2, 3, 4)) -> Made:
    """DATA with annotations numbered from `first`, and images of other ids."""

    class Numbered(Made):
        def ground_truth(self) -> dict[str, Any]:
            truth = super().ground_truth()
            for number, record in enumerate(truth["annotations"], first):
                record["id"] = number
            return truth

    return Numbered(dict(zip(images, DATA.boxes.values(), strict=True)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("images", [(1, 2, 3, 4), (0, -1, 5, 2**62)], ids=["images", "other_images"])
@pytest.mark.parametrize("first", [1, 0, -1, -100, 2**62])
def test_numbers_do_not_depend_on_ids(backend: str, images: tuple[int, ...], first: int) -> None:
    """COCO's evaluation reads an annotation id of 0 as "no match"."""
    if backend == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    perfect = {images[number - 1]: found for number, found in PERFECT.items()}
    values = metrics(evaluator("box", "mask", "proposal", data=numbered(first, images), backend=backend), perfect)
    for name in ("box_ap", "mask_ap", "box_ar100", "ar100"):
        assert values[name] == pytest.approx(1.0)


def test_class_names_are_shown_as_they_are() -> None:
    """Neither markup nor emoji of the table library."""
    data = Made(DATA.boxes)
    data.classes = Classes(names=("stop [/old]", "[red]cat", ":car:"), ids=(2, 5, 9))
    made = evaluator("box", data=data)
    table = made.compute(made.encode(1, PERFECT[1])).table
    for name in data.classes.names:
        assert name in table
