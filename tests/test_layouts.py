"""From the export of an annotation tool to a trained, tested and predicting detector, with the pages' commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))

from tiny_settings import DETECTOR
from tool_exports import Write, cvat, label_studio, labelme, lone_json, roboflow, roboflow_yolo, ultralytics

from det_core.cli.main import run
from det_core.engine.checkpoint import read_header, weights_file
from det_core.engine.open_data import maskless_recipe, shared_images, without_masks
from det_core.load import load_recipe

TINY = (
    "data.train_transforms=[{type: resize, scales: [[64, 64]]}]",
    "data.test_transforms=[{type: resize, scales: [[64, 64]]}]",
    "data.workers=0",
    *DETECTOR,
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


def test_the_commands_of_the_readme_on_joined_sources_and_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cvat(Path("my_data/one"))
    roboflow_yolo(Path("my_data/two"))
    Path("my.yaml").write_text(
        "extends: faster-rcnn/r18-fpn-demo\n"
        "data:\n"
        "  train:\n"
        "    type: joined\n"
        "    sources:\n"
        "      - {type: coco, split: train, folder: one}\n"
        "      - {type: yolo, split: train, folder: two, classes: [cell, clump]}\n"
        "  val: null\n"
        "  val_fraction: 0.5\n"
    )
    settings = [argument for setting in TINY for argument in ("--set", setting)]
    arguments = ["train", "--config", "my.yaml", "--data", "my_data", "--work-dir", "runs/joined", *settings]
    assert run([*arguments, "--device", "cpu", "--max-steps", "2"]) == 0
    out = capsys.readouterr().out
    assert "box_ap" in json.loads(Path("runs/joined/metrics.jsonl").read_text().splitlines()[-1]) or "AP" in out
    recipe = read_header(weights_file("runs/joined")).recipe
    train_ids, val_ids = (set(part.image_ids.tolist()) for part in (recipe.open_train(), recipe.open_val()))
    assert len(train_ids) + len(val_ids) == 6
    assert run(["test", "--checkpoint", "runs/joined"]) == 0
    assert run(["test", "--checkpoint", "runs/joined", "--split", "test"]) == 1
    assert "no annotation file for the test split" in capsys.readouterr().err


def test_the_same_picture_in_two_splits_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roboflow(tmp_path / "data")
    images = tmp_path / "data"
    copied = images / "valid/img-1_png.rf.10c1d2e3f1.jpg"
    original = images / "train/img-2_png.rf.00c1d2e3f2.jpg"
    copied.write_bytes(original.read_bytes())
    assert train(images, tmp_path / "run", "--max-steps", "1") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "warning: 1 image of the validation data are also in the training data (such as" in out
    assert run(["data", "--data", str(images), "--recipe", "faster-rcnn/r18-fpn-demo"]) == 0
    assert f"  {copied} equals {original}" in capsys.readouterr().out


def test_boxes_that_leave_the_image_are_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roboflow(tmp_path / "data")
    file = tmp_path / "data/train/_annotations.coco.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"][0] = -1.5
    file.write_text(json.dumps(content))
    assert train(tmp_path / "data", tmp_path / "run") == 1
    assert "reaches outside its image" in capsys.readouterr().err
    assert train(tmp_path / "data", tmp_path / "run", "--on-bad-sample", "repair", "--max-steps", "1") == 0
    out = capsys.readouterr().out
    assert f"{file}: repaired: 1 annotation clipped to the image, 0 without area left out" in out


def test_few_images_are_compared_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = load_recipe("faster-rcnn/r18-fpn-demo").open_val()
    assert shared_images(sample, sample).startswith("warning: 7 images of the validation data are also in the training")
    monkeypatch.setattr("det_core.engine.open_data.MOST_IMAGES", 13)
    assert shared_images(sample, sample) == ""


def test_a_mask_recipe_without_a_twin() -> None:
    recipe = load_recipe("mask-rcnn/r18-fpn-demo")
    assert without_masks(recipe).endswith("take faster-rcnn/r18-fpn-demo, the same model without masks")
    alone = load_recipe("mask-rcnn/r18-fpn-demo", ["detector.neck.channels=24"])
    assert maskless_recipe(alone) is None
    assert without_masks(alone).endswith("take one without, such as faster-rcnn/r50-fpn-1x")


@pytest.mark.parametrize("name", ["mask-rcnn/r50-fpn-1x", "cascade-mask-rcnn/r50-fpn-1x", "htc/r50-fpn-1x"])
def test_the_same_model_without_masks(name: str) -> None:
    twins = {"mask-rcnn": "faster-rcnn", "cascade-mask-rcnn": "cascade-rcnn", "htc": "cascade-rcnn"}
    assert maskless_recipe(load_recipe(name)) == f"{twins[name.partition('/')[0]]}/r50-fpn-1x"


def test_rare_classes_are_repeated_and_a_resumed_run_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of three images has the class `rare`: sqrt(0.5 / (1 / 3)) = 1.22."""
    cvat(tmp_path / "data")
    file = tmp_path / "data/annotations/instances_default.json"
    content = json.loads(file.read_text())
    content["categories"].append({"id": 3, "name": "rare"})
    content["annotations"][0]["category_id"] = 3
    file.write_text(json.dumps(content))
    more = ("--set", "data.repeat_threshold=0.5", "--set", "data.images_per_rank=1", "--set", "schedule.epochs=2")
    assert train(tmp_path / "data", tmp_path / "whole", *more) == 0
    out = capsys.readouterr().out
    assert "class-balanced sampling: 1 image of 3 repeated, up to 1.22 times; 3 images per pass" in out
    assert train(tmp_path / "data", tmp_path / "parts", *more, "--max-steps", "3") == 0
    assert train(tmp_path / "data", tmp_path / "parts", *more, "--resume") == 0
    whole, parts = (load_file(weights_file(str(tmp_path / name))) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
