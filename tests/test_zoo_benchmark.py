"""`benchmarks/zoo.py` runs what there is, and says what fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from attrs import evolve

from det_core.load import load_recipe
from det_core.offers import RecipeEntry
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
DEMOS = [
    "rpn/r18-fpn-demo",
    "fast-rcnn/r18-fpn-demo",
    "ssd/vgg16-demo",
    "faster-rcnn/mobilenet-v3-small-fpn-demo",
    "ga-retinanet/r18-fpn-demo",
    "htc/r18-fpn-demo",
]


@pytest.fixture(scope="module")
def zoo():
    """The benchmark as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import zoo

        yield zoo
    finally:
        sys.path.remove(str(BENCHMARKS))


def arguments(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["zoo.py", *map(str, words)])


@pytest.mark.parametrize("name", DEMOS)
def test_models_of_every_kind_of_input_run(zoo, name: str, monkeypatch, tmp_path, capsys) -> None:
    path = tmp_path / "zoo.json"
    arguments(monkeypatch, "--find", name, "--size", 64, 96, "--json", path)
    assert zoo.main() == 0
    out = capsys.readouterr().out
    assert name in out
    assert "1 recipes, 0 failures" in out
    (result,) = json.loads(path.read_text(encoding="utf8"))
    count = sum(p.numel() for p in load_recipe(name).detector.build(num_classes=1).parameters())
    assert result["parameters"] == pytest.approx(count / 1e6)
    assert min(result["build_s"], result["train_s"], result["infer_s"]) > 0
    assert result["failure"] == ""


def test_batch_norms_of_a_map_of_one_cell_get_two_images(zoo, monkeypatch, capsys) -> None:
    arguments(monkeypatch, "--find", "ssd/torchvision-mobilenet-v3-large-320")
    assert zoo.main() == 0
    assert "1 recipes, 0 failures" in capsys.readouterr().out
    for name, count in (("ssd/vgg16-demo", 1), ("faster-rcnn/torchvision-r50-fpn-v2", 1)):
        recipe = load_recipe(name)
        with torch.device("meta"):
            assert zoo.images_of(recipe, recipe.detector.build(num_classes=1), 1) == count


def test_failures_are_shown_and_the_rest_still_runs(zoo, monkeypatch, capsys) -> None:
    def broken() -> Recipe:
        raise RuntimeError("first line\nsecond")

    def endless() -> Recipe:
        recipe = load_recipe("rpn/r18-fpn-demo")
        head = recipe.detector.dense_head
        cls_loss = evolve(head.cls_loss, weight=1e300)
        return evolve(recipe, detector=evolve(recipe.detector, dense_head=evolve(head, cls_loss=cls_loss)))

    made = {"bad/one": broken, "bad/two": endless}
    real = zoo.load_recipe
    monkeypatch.setattr(zoo, "load_recipe", lambda name: made[name]() if name in made else real(name))
    entries = {name: RecipeEntry(name=name, make=make) for name, make in made.items()}
    entries["rpn/r18-fpn-demo"] = plugin_manager().recipes()["rpn/r18-fpn-demo"]
    monkeypatch.setattr(zoo, "plugin_manager", lambda: type("Manager", (), {"recipes": lambda self: entries})())
    arguments(monkeypatch, "--size", 64, 64)
    torch.manual_seed(0)
    assert zoo.main() == 1
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "bad/one FAILED: RuntimeError: first line" in lines
    assert any(line.startswith("bad/two FAILED: ValueError: loss rpn_cls is inf") for line in lines)
    assert any(line.startswith("rpn/r18-fpn-demo 1") and "FAILED" not in line for line in lines)
    assert lines[-1] == "3 recipes, 2 failures"


def test_no_recipe_is_no_success(zoo, monkeypatch) -> None:
    arguments(monkeypatch, "--find", "no-such-recipe")
    assert zoo.main() == 1
