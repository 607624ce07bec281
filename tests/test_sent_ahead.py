"""Training and evaluation with batches that are sent ahead give bit for bit what they give without."""

from __future__ import annotations

import json
from contextlib import contextmanager

import attrs
import pytest
import torch

import det_core.engine.evaluate as evaluation
import det_core.engine.training_loop as engine
from det_core import evaluate, load_recipe, train
from det_core.engine import checkpoint as checkpoints
from det_core.evaluation.coco_metric import CocoEvaluator
from det_core.structures import Detections


class Streams:
    """Those of the CPU, on which all is done at once."""

    device = torch.device("cpu")
    copies = 0

    @contextmanager
    def copying(self):
        Streams.copies += 1
        yield

    def wait(self):
        pass

    def used(self, tensor):
        pass


@pytest.fixture
def recipe(tiny_settings):
    return load_recipe("mask-rcnn/r18-fpn-demo", [*tiny_settings, "schedule.accumulate=2", "schedule.epochs=1"])


def losses(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: {k: v for k, v in row.items() if k.startswith("loss/")} for row in rows if "lr" in row}


def weights(run):
    return checkpoints.read_weights(checkpoints.weights_file(checkpoints.last_checkpoint(run)))


def test_a_run_and_a_resumed_run_are_bit_equal(tmp_path, recipe, monkeypatch):
    plain, sent = tmp_path / "plain", tmp_path / "sent"
    train(recipe, work_dir=plain, max_steps=3, log_every=1, quiet=True)
    Streams.copies = 0
    monkeypatch.setattr(engine, "streams_of", lambda device: Streams())
    train(recipe, work_dir=sent, max_steps=1, log_every=1, quiet=True)
    assert Streams.copies == 3  # two batches of the step, and the next
    train(recipe, work_dir=sent, max_steps=3, log_every=1, quiet=True, resume=True)
    assert losses(sent) == losses(plain)
    assert len(losses(plain)) == 3
    expected, found = weights(plain), weights(sent)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_evaluation_finds_the_same(recipe, monkeypatch):
    config = attrs.evolve(recipe.detector.roi_head, score_threshold=0.0)
    torch.manual_seed(0)
    data = recipe.open_val()
    detector = attrs.evolve(recipe.detector, roi_head=config).build(classes=data.classes)
    encoded: list[tuple[int, Detections]] = []
    monkeypatch.setattr(CocoEvaluator, "encode", lambda self, number, found: encoded.append((number, found)) or [])
    for streams in (None, Streams()):
        monkeypatch.setattr(evaluation, "streams_of", lambda device, given=streams: given)
        Streams.copies = 0
        evaluate(detector, data, transforms=recipe.data.test_transforms, batch_size=2)
    assert Streams.copies == -(-len(data) // 2)  # the images are of one size
    plain, sent = encoded[: len(encoded) // 2], encoded[len(encoded) // 2 :]
    assert [number for number, _ in plain] == [number for number, _ in sent]
    assert sum(len(found) for _, found in plain) > 0
    for (_, one), (_, other) in zip(plain, sent, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)
        assert one.mask_codes() == other.mask_codes()
