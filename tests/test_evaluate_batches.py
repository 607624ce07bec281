"""Evaluating several images at once gives what one at a time gives; the evaluators' errors come through."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from det_core import evaluate, load_recipe, predict
from det_core.data.coco_dataset import CocoDataset
from det_core.errors import DetError
from det_core.evaluation.coco_metric import CocoEvaluator

SIZES = [(60, 80), (64, 96), (80, 60), (60, 80), (96, 64), (50, 70), (60, 80)]


@pytest.fixture
def data(tmp_path):
    """Images of several sizes, each with a rectangle."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, (height, width) in enumerate(SIZES, 1):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        ring = [[5, 5, 40, 5, 40, 30, 5, 30]]
        box = {"bbox": [5, 5, 35, 25], "area": 875, "segmentation": ring}
        annotations.append({"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, **box})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "data.json").write_text(json.dumps(content))
    return CocoDataset(tmp_path / "data.json", tmp_path, masks=True)


@pytest.fixture
def detector(tiny_settings, data):
    settings = [*tiny_settings, "detector.roi_head.score_threshold=0.0"]
    torch.manual_seed(0)
    return load_recipe("mask-rcnn/r18-fpn-demo", settings).detector.build(classes=data.classes).eval()


def records(monkeypatch, detector, data, **options):
    """What the evaluator is given, by image."""
    seen = {}
    real = CocoEvaluator.encode

    def encode(self, image_id, detections):
        seen[image_id] = detections
        return real(self, image_id, detections)

    monkeypatch.setattr(CocoEvaluator, "encode", encode)
    done = []
    result = evaluate(detector, data, progress=lambda count, total: done.append((count, total)), **options)
    monkeypatch.undo()
    assert done[-1] == (len(SIZES), len(SIZES))
    return seen, result


@pytest.mark.parametrize("batch_size", [2, 3])
def test_batches_give_what_single_images_give(monkeypatch, detector, data, batch_size):
    one, alone = records(monkeypatch, detector, data)
    several, together = records(monkeypatch, detector, data, batch_size=batch_size)
    assert sorted(one) == sorted(several) == list(range(1, len(SIZES) + 1))
    for number, found in one.items():
        assert len(found) > 0
        assert torch.allclose(found.boxes, several[number].boxes, atol=1e-3)
        assert torch.allclose(found.scores, several[number].scores, atol=1e-5)
    assert together.metrics == pytest.approx(alone.metrics, abs=1e-6, nan_ok=True)


def test_predict_keeps_the_order(detector, data):
    files = [data.file(index) for index in range(len(data))]
    for one, other in zip(predict(detector, files), predict(detector, files, batch_size=4), strict=True):
        assert torch.allclose(one.boxes, other.boxes, atol=1e-3)


def test_errors_of_evaluators_come_through(monkeypatch, detector, data):
    def encode(self, image_id, detections):
        raise DetError(f"image {image_id} cannot be encoded")

    monkeypatch.setattr(CocoEvaluator, "encode", encode)
    with pytest.raises(DetError, match="image 1 cannot be encoded"):
        evaluate(detector, data)
