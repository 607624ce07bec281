"""From the export of an annotation tool to a trained, tested and predicting detector, with the README's commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tool_exports import Write, cvat, label_studio, labelme, lone_json, roboflow, roboflow_yolo, ultralytics

from det_core.cli.main import run
from det_core.engine.checkpoint import read_header, weights_file

TINY = (
    "data.train_transforms=[{type: resize, scales: [[64, 64]]}]",
    "data.test_transforms=[{type: resize, scales: [[64, 64]]}]",
    "data.workers=0",
    "detector.neck={type: fpn, channels: 32, norm: {type: group_norm, groups: 8}}",
    "detector.dense_head.channels=32",
    "detector.dense_head.train_limits={before_nms: 50, after_nms: 30}",
    "detector.dense_head.test_limits={before_nms: 50, after_nms: 30}",
    "detector.roi_head.box_head.fc_channels=32",
    "detector.roi_head.sampler.count=16",
    "schedule.epochs=1",
)


def train(root: Path, runs: Path, *more: str, recipe: str = "faster-rcnn/r18-fpn-demo") -> int:
    settings = [argument for setting in TINY for argument in ("--set", setting)]
    arguments = ["--recipe", recipe, "--data", str(root), "--work-dir", str(runs), *settings]
    return run(["train", *arguments, "--device", "cpu", *more])


@pytest.mark.parametrize(
    ("write", "has_val", "recipe", "said"),
    [
        (roboflow, True, "faster-rcnn", "category id 0 ('cells-x1Yz') is left out"),
        (cvat, False, "mask-rcnn", "no validation data, so training does not evaluate"),
        (label_studio, False, "mask-rcnn", "names of images are taken relative to the annotation file"),
        (lone_json, False, "mask-rcnn", "names of images are taken without their folders"),
        (labelme, False, "mask-rcnn", "no validation data"),
        (ultralytics, True, "mask-rcnn", "does not exist; its folder is taken instead"),
        (roboflow_yolo, True, "faster-rcnn", "2 classes"),
    ],
)
def test_an_export_trains_tests_and_predicts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write: Write,
    has_val: bool,
    recipe: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("my_data"))
    assert run(["data", "--data", "my_data", "--recipe", f"{recipe}/r18-fpn-demo"]) == 0
    report = capsys.readouterr().out
    assert "No problems found." in report
    assert ("No validation data" in report) is not has_val
    assert train(Path("my_data"), Path("runs/mine"), recipe=f"{recipe}/r18-fpn-demo") == 0
    out = capsys.readouterr().out
    assert out.count(said) == 1
    header = read_header(weights_file("runs/mine"))
    assert header.classes.names == ("cell", "clump")
    assert header.recipe.data.root == str(tmp_path / "my_data")
    split = "val" if has_val else "train"
    monkeypatch.chdir("/")  # the run knows where its data are
    test = ["test", "--checkpoint", str(tmp_path / "runs/mine"), "--split", split]
    assert run([*test, "--json", str(tmp_path / "metrics.json")]) == 0
    assert "box_ap" in json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    found = str(tmp_path / "found")
    assert run(["predict", "--checkpoint", str(tmp_path / "runs/mine"), str(tmp_path / "my_data"), "--out", found]) == 0
    assert (tmp_path / "found/predictions.jsonl").is_file()
