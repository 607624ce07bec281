"""`recipes diff` and `recipes show --changed`: what they print, and that it is read back as the same recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from det_core import load_recipe
from det_core.cli.main import cli
from det_core.config.differences import ABSENT, changes, differences
from det_core.config.overrides import merge

RECIPES = ("faster-rcnn/r50-fpn-1x", "ssd/vgg16-demo", "htc/r18-fpn-demo", "mask-rcnn/r50-fpn-gn-ws-2x")


def printed(*words: object) -> str:
    result = CliRunner().invoke(cli, ["recipes", *map(str, words)])
    assert result.exit_code == 0, result.output
    return result.output


def test_differences_by_hand():
    a = {
        "x": 1,
        "part": {"type": "p", "n": 2},
        "other": {"type": "p"},
        "list": [1, 2],
        "parts": [{"type": "q", "m": 1}],
    }
    b = {"x": 1.0, "part": {"type": "p", "n": 3}, "other": {"type": "r"}, "list": [1], "parts": [{"type": "q", "m": 2}]}
    found = {d.path: (d.before, d.after) for d in differences(a, {**b, "new": None})}
    assert found == {
        "x": (1, 1.0),
        "part.n": (2, 3),
        "other": ({"type": "p"}, {"type": "r"}),
        "list": ([1, 2], [1]),
        "parts[0].m": (1, 2),
        "new": (ABSENT, None),
    }
    assert not list(differences(a, a))


def test_values_of_another_type_differ_in_lists_too():
    """Though Python says that [1] == [1.0] == [True]."""
    for a, b in ([1], [1.0]), ([1], [True]), ([[0]], [[False]]):
        assert [d.path for d in differences({"x": a}, {"x": b})] == ["x"]
        assert changes({"x": a}, {"x": b})["x"] is b
    assert [d.path for d in differences({"x": [[1, 2]]}, {"x": [[1, 3]]}, items=True)] == ["x[0][1]"]


def test_diff_of_two_recipes():
    lines = printed("diff", "faster-rcnn/r50-fpn-1x", "faster-rcnn/r101-fpn-2x").splitlines()
    assert "detector.backbone.depth: 50 -> 101" in lines
    assert "schedule.learning_rate.milestones: [8, 11] -> [16, 22]" in lines
    assert printed("diff", "ssd/vgg16-demo", "ssd/vgg16-demo") == "the recipes are equal\n"
    found = json.loads(printed("diff", "faster-rcnn/r50-fpn-1x", "faster-rcnn/r101-fpn-2x", "--json"))
    assert {"path": "schedule.epochs", "first": 12, "second": 24} in found


@pytest.mark.parametrize("name", RECIPES)
def test_changed_values_are_read_back_as_the_recipe(name, tmp_path):
    text = printed("show", name, "--changed")
    assert len(text) < len(printed("show", name))
    (tmp_path / "own.yaml").write_text(text)
    assert load_recipe(tmp_path / "own.yaml") == load_recipe(name)


def test_changed_values_of_a_file_that_extends_a_recipe(tmp_path):
    file = tmp_path / "mine.yaml"
    own = {
        "extends": RECIPES[0],
        "detector": {"roi_head": {"score_threshold": 0.1}, "backbone": {"depth": 50}},
        "data": {"train_transforms": [{"type": "flip"}], "workers": 2},
    }
    file.write_text(yaml.safe_dump(own))
    text = printed("show", file, "--changed", "--set", "schedule.epochs=5")
    shown = yaml.safe_load(text)
    assert shown.pop("data")["train_transforms"][0]["type"] == "flip"
    assert shown == {
        "extends": RECIPES[0],
        "detector": {"roi_head": {"score_threshold": 0.1}},  # the depth is that of the recipe
        "schedule": {"epochs": 5},
    }
    before = load_recipe(file, ["schedule.epochs=5"])
    file.write_text(text)
    assert load_recipe(file) == before


@pytest.mark.parametrize("first", RECIPES)
@pytest.mark.parametrize("second", RECIPES)
def test_changes_make_one_recipe_from_another(first: str, second: str):
    a, b = (load_recipe(name).to_plain() for name in (first, second))
    assert merge(a, changes(a, b)) == b
    assert bool(changes(a, b)) == (first != second)


def test_unknown_recipes_are_named(tmp_path: Path):
    result = CliRunner().invoke(cli, ["recipes", "diff", "ssd/vgg16-demo", "ssd/vgg16-dem"])
    assert result.exit_code == 1
    assert 'did you mean "ssd/vgg16-demo"' in result.output
