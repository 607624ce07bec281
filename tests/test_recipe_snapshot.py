"""Every value of every recipe is the one in the snapshot, `recipes.json.xz`, and the comparison finds what is not."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recipe_snapshot import current_recipes, differences, read_snapshot, shortened, write_snapshot

NAME = "mask-rcnn/r50-fpn-1x"


def test_recipes_are_those_of_the_snapshot() -> None:
    found = differences(read_snapshot(), current_recipes())
    assert not found, f"recipes differ; if on purpose: python tests/recipe_snapshot.py\n{shortened(found)}"


@pytest.fixture
def changed() -> dict[str, Any]:
    """A copy of two recipes of the snapshot, to change."""
    return copy.deepcopy(two_recipes())


def two_recipes() -> dict[str, Any]:
    snapshot = read_snapshot()
    return {name: snapshot[name] for name in (NAME, "ssd/vgg16-demo")}


def test_equal_recipes_do_not_differ(changed: dict[str, Any]) -> None:
    assert differences(two_recipes(), changed) == []


def test_a_changed_value_is_named_with_its_recipe_and_path(changed: dict[str, Any]) -> None:
    recipe = changed[NAME]["recipe"]
    recipe["detector"]["backbone"]["depth"] = 101
    recipe["data"]["train_transforms"][0]["scales"][0][1] = 640
    recipe["schedule"]["learning_rate"]["milestones"] = [8]
    changed[NAME]["published"]["box_ap"] = None
    changed[NAME]["requires"] = ["det-plugin-htc"]
    assert differences(two_recipes(), changed) == [
        f"{NAME}: published.box_ap: 37.3 became null",
        f"{NAME}: recipe.data.train_transforms[0].scales[0][1]: 800 became 640",
        f"{NAME}: recipe.detector.backbone.depth: 50 became 101",
        f"{NAME}: recipe.schedule.learning_rate.milestones: [8, 11] became [8]",
        f'{NAME}: requires: [] became ["det-plugin-htc"]',
    ]


def test_a_value_of_another_type_differs(changed: dict[str, Any]) -> None:
    """Though Python says that 1 == 1.0 == True."""
    schedule = changed[NAME]["recipe"]["schedule"]
    schedule["epochs"], schedule["compile"] = 12.0, 0
    assert differences(two_recipes(), changed) == [
        f"{NAME}: recipe.schedule.compile: false became 0",
        f"{NAME}: recipe.schedule.epochs: 12 became 12.0",
    ]


def test_a_setting_that_is_gone_or_new_differs(changed: dict[str, Any]) -> None:
    schedule = changed[NAME]["recipe"]["schedule"]
    schedule["epoch"] = schedule.pop("epochs")
    assert differences(two_recipes(), changed) == [
        f"{NAME}: recipe.schedule.epochs: 12 became nothing",
        f"{NAME}: recipe.schedule.epoch: nothing became 12",
    ]


def test_a_recipe_that_is_gone_or_new_differs(changed: dict[str, Any]) -> None:
    changed["mask-rcnn/new"] = changed.pop(NAME)
    assert differences(two_recipes(), changed) == [f"{NAME}: no longer exists", "mask-rcnn/new: is new"]


def test_of_many_differences_the_first_are_shown() -> None:
    lines = [str(i) for i in range(25)]
    assert shortened(lines).splitlines() == [*lines[:20], "... and 5 more"]
    assert shortened(lines[:20]).splitlines() == lines[:20]


def test_a_snapshot_is_read_as_it_was_written(changed: dict[str, Any], tmp_path: Path) -> None:
    write_snapshot(changed, tmp_path / "recipes.json.xz")
    assert read_snapshot(tmp_path / "recipes.json.xz") == changed
