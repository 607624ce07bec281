"""From another project's checkpoint to a detector of one's own classes, by the command line alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from det_core.cli.main import run
from det_core.engine.checkpoint import last_checkpoint, load_detector, read_weights, weights_file
from det_core.load import load_recipe
from det_core.weights.translate_names import detector_names, locate

RECIPE = "faster-rcnn/r18-fpn-demo"
THEIRS = 5
OURS = ("disc", "square")
FRESH = {f"roi_head.box_head.{layer}.{part}" for layer in ("scores", "deltas") for part in ("weight", "bias")}
SETTINGS = (
    "data.workers=0",
    "data.train_transforms=[{type: resize, scales: [[64, 64]]}]",
    "data.test_transforms=[{type: resize, scales: [[64, 64]]}]",
    "schedule.epochs=1",
    "schedule.learning_rate.milestones=[]",
)


def their_weights() -> dict[str, Tensor]:
    """A detector of other classes under the names of mmdet."""
    torch.manual_seed(0)
    config = load_recipe(RECIPE).detector
    names = detector_names("mmdet", config, [])
    state = config.build(num_classes=THEIRS).state_dict()
    return {locate("mmdet", names, key).name: value for key, value in state.items()}


def own_data(root: Path) -> Path:
    """Images of noise, three to train on and one to test, each with an object of each class."""
    random = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    for split, numbers in (("train", (1, 2, 3)), ("val", (4,))):
        for number in numbers:
            Image.fromarray(random.integers(0, 256, (48, 64, 3), np.uint8)).save(root / "images" / f"{number}.png")
        plain = {
            "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in numbers],
            "categories": [{"id": 3 * i + 2, "name": name} for i, name in enumerate(OURS)],
            "annotations": [
                {"id": 10 * i + c, "image_id": i, "category_id": 3 * c + 2, "bbox": [4 + 28 * c, 6, 24, 30]}
                for i in numbers
                for c in range(len(OURS))
            ],
        }
        (root / f"instances_{split}.json").write_text(json.dumps(plain), encoding="utf8")
    return root


def settings(*more: str) -> list[str]:
    return [word for setting in (*SETTINGS, *more) for word in ("--set", setting)]


def test_an_older_checkpoint_becomes_a_detector_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """import-weights -> train --init -> test -> predict, with another number of classes."""
    data = own_data(tmp_path / "data")
    torch.save({"state_dict": their_weights()}, tmp_path / "old.pth")
    old = tmp_path / "old.safetensors"
    assert (
        run(["import-weights", str(tmp_path / "old.pth"), "--from", "mmdet", "--recipe", RECIPE, "-o", str(old)]) == 0
    )
    assert f"a detector of mmdet 2.x and 3.x, {THEIRS} classes" in capsys.readouterr().out

    train = ["train", "--recipe", RECIPE, "--data", str(data), "--init", str(old), "--device", "cpu"]
    still = tmp_path / "still"  # a step that moves no weight, to see where training starts from
    assert run([*train, "--work-dir", str(still), *settings("optimizer.lr=1e-30")]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("re-initialised"))
    assert set(line.partition(": ")[2].split(", ")) == FRESH
    before, after = read_weights(old), read_weights(weights_file(still))
    assert f"init: {len(before) - len(FRESH)} tensors from {old}" in out
    assert before.keys() == after.keys()
    for name, value in after.items():
        if name in FRESH:
            assert value.shape[0] in (len(OURS) + 1, 4 * len(OURS))
            assert before[name].shape[0] in (THEIRS + 1, 4 * THEIRS)
        else:
            assert torch.allclose(value, before[name], rtol=0, atol=1e-20), name

    moved = tmp_path / "moved"
    assert run([*train, "--work-dir", str(moved), *settings()]) == 0
    assert last_checkpoint(moved) is not None
    trained = read_weights(weights_file(moved))
    assert not any(torch.equal(trained[name], after[name]) for name in FRESH)
    assert not torch.equal(trained["backbone.conv1.weight"], before["backbone.conv1.weight"])
    assert load_detector(moved).classes.names == OURS
    assert load_detector(moved).classes.ids == (2, 5)

    capsys.readouterr()
    metrics = tmp_path / "metrics.json"
    assert run(["test", "--checkpoint", str(moved), "--json", str(metrics), "--device", "cpu"]) == 0
    assert 0 <= json.loads(metrics.read_text(encoding="utf8"))["metrics"]["box_ap"] <= 1
    found = ["predict", "--checkpoint", str(moved), "--score-threshold", "0", "--device", "cpu"]
    assert run([*found, "--out", str(tmp_path / "out"), str(data / "images" / "4.png")]) == 0
    record = json.loads((tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf8"))
    assert {detection["class"] for detection in record["detections"]} <= set(OURS)
