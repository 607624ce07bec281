"""Which data a recipe takes: the folder of --data, before --set; recipes without validation data; parts and splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from det_core.cli.main import run
from det_core.data.data_config import CocoConfig, SampleConfig, VocConfig
from det_core.data.files_config import LabelmeConfig, YoloConfig
from det_core.errors import ConfigError
from det_core.load import load_recipe, recipe_from_plain
from det_core.recipe import Recipe
from det_core.settings import evolve

DEMO = "faster-rcnn/r18-fpn-demo"
MakeCoco = Callable[..., Path]


def demo(*overrides: str, data: Path | None = None) -> Recipe:
    return load_recipe(DEMO, overrides, data=data)


def test_settings_change_the_data_of_the_folder(make_coco: MakeCoco) -> None:
    root = make_coco()
    (root / "mine.json").write_text((root / "instances_train.json").read_text())
    recipe = demo("data.train.annotations=mine.json", "data.val.annotations=mine.json", data=root).settled()
    assert recipe.data.train == CocoConfig(split="train", annotations="mine.json")
    assert recipe.open_train().name == str(root / "mine.json")
    assert recipe.open_val().name == str(root / "mine.json")
    with pytest.raises(ConfigError, match="data.train.annotations: unknown key"):
        demo("data.train.annotations=mine.json")


def test_problems_of_a_file_are_told_before_those_of_settings(tmp_path: Path, make_coco: MakeCoco) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"extends: {DEMO}\ndata: {{wrokers: 3}}\n")
    with pytest.raises(ConfigError, match=r"my\.yaml: 1 problem\n  line 2: data\.wrokers"):
        load_recipe(path, ["data.train.annotations=a.json"], data=make_coco())


def test_the_root_is_absolute(make_coco: MakeCoco, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_coco()
    monkeypatch.chdir(root.parent)
    assert demo().with_data("data").data.root == str(root)
    assert demo("data.train={type: coco, split: train}", "data.root=data").settled().data.root == str(root)
    assert demo().settled().data.root == ""


def test_formats_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [a]\ntrain: images\n")
    recipe = demo("data.train={type: coco, split: train, classes: [a=b], min_size: 3}").with_data(tmp_path)
    assert recipe.data.train == YoloConfig(split="train", classes=("a=b",), min_size=3)
    assert recipe.with_data(tmp_path).data.train == recipe.data.train
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "a.json").write_text('{"shapes": []}')
    assert recipe.with_data(tmp_path).data.train == LabelmeConfig(split="train", classes=("a=b",), min_size=3)
    voc = demo("data.train={type: voc, split: train}").with_data(tmp_path).data.train
    assert voc == LabelmeConfig(split="train")
    named = demo("data.train={type: voc, split: train, sets: [train]}").with_data(tmp_path).data.train
    assert named == VocConfig(split="train", sets=("train",))


def test_the_format_is_that_of_the_folder_of_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/data.yaml").write_text("names: [a]\ntrain: images\n")
    made = demo("data.train={type: coco, split: train, folder: sub}").with_data(tmp_path).data.train
    assert made == YoloConfig(split="train", folder="sub")


def test_a_folder_without_validation_data(make_coco: MakeCoco) -> None:
    root = make_coco()
    recipe = demo(data=root).settled()
    assert recipe.data.val is None
    assert not recipe.data.has_validation()
    assert recipe.settled() == recipe
    with pytest.raises(ConfigError, match="data.val: is null: there are no validation data; name another split"):
        recipe.open_val()
    make_coco(split="val")
    assert demo(data=root).settled().data.has_validation()


def test_a_part_of_the_training_images_is_for_validation(make_coco: MakeCoco) -> None:
    root = make_coco()
    whole = demo(data=root).settled().open_train()
    recipe = demo("data.val_fraction=0.25", data=root).settled()
    assert recipe.data.has_validation()
    assert recipe.data.dataset("val") == CocoConfig(split="train", part=(0, 0.25))
    ids = [*recipe.open_train().image_ids.tolist(), *recipe.open_val().image_ids.tolist()]
    assert 0 < len(recipe.open_val()) < len(whole)
    assert sorted(ids) == sorted(whole.image_ids.tolist())


def test_a_part_and_validation_data(make_coco: MakeCoco) -> None:
    root = make_coco()
    make_coco(split="val")
    recipe = demo("data.val_fraction=0.1", data=root)
    with pytest.raises(ConfigError, match="data.val_fraction: is 0.1, but there are validation data; set it to 0, or"):
        recipe.settled()
    with pytest.raises(ConfigError, match="data.val_fraction: data of type 'sample' cannot be divided; set it to 0"):
        demo("data.val_fraction=0.1", "data.val=null").settled()


def test_the_test_split_has_a_name(make_coco: MakeCoco) -> None:
    root = make_coco()
    make_coco(split="test")
    recipe = demo(data=root).settled()
    assert recipe.data.dataset("test") == CocoConfig(split="test")
    assert recipe.open_val("test").name == str(root / "instances_test.json")
    assert evolve(recipe.data, val=None).dataset("test") == CocoConfig(split="test")
    with pytest.raises(ConfigError, match=r"data.val: the data set \('sample'\) has no splits by name, so the test"):
        demo().data.dataset("test")
    with pytest.raises(ConfigError, match=r"data.val: the data set \('coco'\) names its files, so the test split is"):
        demo("data.val.annotations=a.json", data=root).data.dataset("test")


def test_the_command_test_without_validation_data(
    make_coco: MakeCoco, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from det_core.cli.choose import Changes

    changes = Changes(
        overrides=("data.train.min_size=3",), data=None, use_amp=False, on_bad_sample="repair", allow_outside=True
    )
    made = changes.made_to(demo(data=make_coco()), tmp_path / "x")
    assert made.data.train == CocoConfig(split="train", min_size=3, allow_outside=True)
    assert made.data.val is None
    assert made.data.on_bad_sample == "repair"


def test_the_report_on_data_without_validation(make_coco: MakeCoco, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(data: dict[str, Any]) -> None:
        names = [category["name"] for category in data["categories"]]
        data["categories"] = [{**c, "supercategory": "all"} for c in data["categories"]]
        data["categories"].append({"id": 500, "name": "all", "supercategory": "none"})
        assert len(names) > 1

    root = make_coco(edit)
    assert run(["data", "--data", str(root), "--recipe", DEMO]) == 0
    out = capsys.readouterr().out
    assert "No validation data: training does not evaluate. --set data.val_fraction=0.1 validates on a tenth" in out
    assert "category id 500 ('all') is left out: it is the root of the other categories" in " ".join(out.split())
    assert run(["data", "--data", str(root), "--recipe", DEMO, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["train"]


def test_the_sample_may_rename_its_class() -> None:
    recipe = demo("data.train.classes=[nucleus=cell]")
    assert isinstance(recipe.data.train, SampleConfig)
    assert recipe.open_train().classes.names == ("cell",)


def test_a_recipe_of_before_these_settings_opens() -> None:
    """The header of an older checkpoint lacks the settings that came later: they have their defaults."""
    recipe = load_recipe("faster-rcnn/r50-fpn-1x")
    plain = recipe.to_plain()
    for name in ("val_fraction", "repeat_threshold"):
        del plain["data"][name]
    for split in ("train", "val"):
        for name in ("folder", "part", "classes"):
            del plain["data"][split][name]
    assert recipe_from_plain(plain) == recipe
