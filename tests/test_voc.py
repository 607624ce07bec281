"""From the command line: a folder in VOC's format is recognised, reported on, trained on and evaluated."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import attrs
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_settings import DATA, DETECTOR, NO_DROP

from det_core.cli.main import run
from det_core.data.data_config import VOC_CLASSES, CocoConfig, SampleConfig, VocConfig
from det_core.errors import ConfigError, DetError
from det_core.load import load_recipe, recipe_from_plain
from det_core.recipe import Recipe

BCCD = Path(__file__).parents[1] / "core/tests/data/bccd"
RECIPE = "faster-rcnn/r18-fpn-demo"
TINY = (*DATA, *DETECTOR, "detector.roi_head.score_threshold=0.0", "schedule.epochs=1", NO_DROP)
VOC_METRIC = ("evaluation.evaluators=[{type: voc}, {type: coco}]", "evaluation.best=voc_map")


def settings(*more: str) -> list[str]:
    return [argument for setting in (*TINY, *more) for argument in ("--set", setting)]


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BCCD, tmp_path / "voc"))


def coco_beside(root: Path) -> None:
    """Annotations in COCO's format, of one image, in a folder."""
    image = {"id": 1, "file_name": "BloodImage_00004.jpg", "width": 640, "height": 480}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 90, 90], "area": 8100, "iscrowd": 0}
    data = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cell"}]}
    for split in ("train", "val"):
        (root / f"instances_{split}.json").write_text(json.dumps(data))


def on(root: Path, train: object, val: object) -> Recipe:
    recipe = load_recipe(RECIPE)
    return attrs.evolve(recipe, data=attrs.evolve(recipe.data, train=train, val=val)).with_data(root)


# Which format a folder is read in


def test_a_coco_recipe_reads_a_voc_folder_with_the_settings_both_have(voc: Path) -> None:
    shared = {"filter_empty": True, "min_size": 32, "proposals": "a.safetensors", "max_proposals": 7}
    recipe = on(voc, CocoConfig(split="train", **shared), CocoConfig(split="val"))
    assert recipe.data.root == str(voc)
    assert recipe.data.train == VocConfig(split="train", classes=None, **shared)
    assert recipe.data.val == VocConfig(split="val", classes=None)


def test_the_sample_gives_way_to_what_is_there(voc: Path) -> None:
    recipe = load_recipe(RECIPE)
    assert isinstance(recipe.data.train, SampleConfig)
    assert recipe.with_data(voc).data.train == VocConfig(split="train", classes=None)
    coco_beside(voc)
    assert recipe.with_data(voc).data.val == CocoConfig(split="val")  # what has both is read as the recipe says
    assert recipe.with_data("/nowhere").data.train == CocoConfig(split="train")


def test_a_voc_recipe(voc: Path, tmp_path: Path) -> None:
    found = VocConfig(split="train", filter_empty=True, classes=("RBC",))
    assert on(voc, found, found).data.train == found
    coco_beside(voc)
    assert on(voc, found, found).data.train == found
    (tmp_path / "coco").mkdir()
    coco_beside(tmp_path / "coco")
    assert on(tmp_path / "coco", found, found).data.train == CocoConfig(split="train", filter_empty=True)


def test_files_that_a_recipe_names_are_not_replaced(voc: Path, tmp_path: Path) -> None:
    named = CocoConfig(split="train", annotations="mine.json")
    recipe = on(voc, named, CocoConfig(split="val", images="pictures"))
    assert recipe.data.train == named
    assert recipe.data.val == CocoConfig(split="val", images="pictures")
    (tmp_path / "coco").mkdir()
    coco_beside(tmp_path / "coco")
    sets = VocConfig(split="train", sets=("VOC2007/trainval",))
    recipe = on(tmp_path / "coco", sets, sets)
    assert recipe.data.train == sets
    with pytest.raises(DetError, match="no VOC data set in it.*COCO format: use `type: coco`"):
        recipe.open_train()


def test_voc_data_round_trip_through_yaml(voc: Path) -> None:
    recipe = load_recipe(RECIPE, ["data.train={type: voc, split: train, sets: [VOC2007/trainval, VOC2012/trainval]}"])
    assert isinstance(recipe.data.train, VocConfig)
    assert recipe.data.train.sets == ("VOC2007/trainval", "VOC2012/trainval")
    assert recipe.data.train.classes == VOC_CLASSES
    for given in (recipe, recipe.with_data(voc)):
        assert recipe_from_plain(given.to_plain()) == given
    with pytest.raises(ConfigError, match=r"data\.train\.difficult: found 'drop', allowed: ignore, keep"):
        load_recipe(RECIPE, ["data.train={type: voc, split: train, difficult: drop}"])


def test_the_best_metric_is_one_that_is_measured() -> None:
    with pytest.raises(ConfigError, match="evaluation.best: no evaluator measures 'box_ap'; did you mean \"voc_map\""):
        load_recipe(RECIPE, ["evaluation.evaluators=[{type: voc}]"])


# The command line


def test_report_on_a_voc_folder(voc: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # long temporary paths stay on their line
    assert run(["data", "--data", str(voc), "--read-images"]) == 0
    out = " ".join(capsys.readouterr().out.split())  # a long temporary path wraps the line it is on
    assert f"{voc} (VOC: trainval)" in out
    assert f"{voc} (VOC: test)" in out
    assert "23 objects" in out
    assert "Platelets" in out
    path = voc / "Annotations/BloodImage_00066.xml"
    path.write_text(path.read_text().replace("<xmin>91<", "<xmin>9100<"))
    assert run(["data", "--data", str(voc), "--json"]) == 1
    bad = json.loads(capsys.readouterr().out)["train"]["bad"]
    assert [b["file"] for b in bad] == [str(path)]
    assert bad[0]["what"].startswith(
        "line 18: object 1 ('RBC'): box (xmin 9100, ymin 3, xmax 194, ymax 109) is inverted"
    )
    assert run(["data", "--data", str(voc), "browse", "--out", str(voc / "out"), "--count", "1"]) == 0
    assert len(list((voc / "out").glob("*.png"))) == 1


def test_train_and_test_on_a_voc_folder(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "run"
    arguments = ["train", "--recipe", RECIPE, "--data", str(voc), "--work-dir", str(work), "--device", "cpu"]
    assert run([*arguments, *settings("data.repeat=3", *VOC_METRIC)]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert f"data: {voc} (VOC: trainval), 2 images; {voc} (VOC: test), 2" in out
    assert "3 classes" in out
    assert "1 epochs of 3 steps of 2 images" in out  # two images, three times
    assert "VOC metrics at IoU 0.5 (percent)" in out
    rows = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    assert {"voc_map", "voc_map11", "box_ap"} <= set(rows[-1])
    assert run(["test", "--checkpoint", str(work), "--json", str(tmp_path / "m.json"), "--device", "cpu"]) == 0
    measured = json.loads((tmp_path / "m.json").read_text())
    assert measured["metrics"]["voc_map"] == pytest.approx(rows[-1]["voc_map"])
    assert set(measured["per_class"]["RBC"]) == {"voc_ap", "voc_ap11", "box_ap", "box_ap50"}


def test_a_mask_recipe_on_a_voc_folder(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--recipe", "mask-rcnn/r18-fpn-demo", "--data", str(voc), "--work-dir", str(tmp_path / "run")]
    assert run(arguments) == 1
    assert "instance masks are required, but data in VOC format have only boxes" in capsys.readouterr().err


def test_bad_annotations_stop_the_run_before_it_starts(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = voc / "Annotations/BloodImage_00004.xml"
    path.write_text('<!DOCTYPE a [<!ENTITY x "y">]>' + path.read_text())
    arguments = ["train", "--recipe", RECIPE, "--data", str(voc), "--work-dir", str(tmp_path / "run"), *settings()]
    assert run(arguments) == 1
    assert f"{path}: line 1: has a DOCTYPE" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert run([*arguments, "--on-bad-sample", "skip", "--max-steps", "1", "--device", "cpu"]) == 0
    assert f"left out: {path}: line 1: has a DOCTYPE" in capsys.readouterr().out
