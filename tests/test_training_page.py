"""docs/training.md: its YAML loads, its loop runs, and names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from det_core import DetError, load_detector, load_recipe, save_detector
from det_core.config.yaml_text import parse_yaml
from det_core.plugins import plugin_manager
from det_core.testing.isolated_plugins import isolated_manager

PAGE = Path(__file__).resolve().parents[1] / "docs" / "training.md"
TEXT = PAGE.read_text(encoding="utf8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_recipes_of_the_page_load(text, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert load_recipe(file).name == "mine"
    assert parse_yaml(text, "page")["extends"]


def test_the_page_names_every_schedule_and_transform():
    for slot in ("learning_rate", "optimizer"):
        for name in plugin_manager().types(slot):
            assert f"`{name}`" in TEXT, name
    own = next(p for p in plugin_manager().plugins if p.name == "core").provides["transform"]
    for name in own:
        assert f"`{name}`" in TEXT, name


def test_the_loop_of_the_page_runs(tmp_path, monkeypatch, capsys):
    (loop,) = blocks("python")
    assert len([line for line in loop.splitlines() if line.strip()]) <= 32
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    exec(compile(loop, str(PAGE), "exec"), found)
    assert "rpn_cls" in capsys.readouterr().out
    detector = found["detector"]
    assert isinstance(detector, torch.nn.Module)
    again = load_detector(tmp_path / "runs" / "own" / "detector.safetensors")
    for name, value in again.state_dict().items():
        assert torch.equal(value, detector.state_dict()[name])
    assert again.classes.names == ("nucleus",)


def test_a_detector_is_saved_with_its_own_recipe(tmp_path):
    recipe = load_recipe("faster-rcnn/r18-fpn-demo")
    detector = recipe.detector.build(num_classes=2)
    with pytest.raises(DetError, match=r"x.pth: a detector is written as .safetensors; use a name with this suffix"):
        save_detector(detector, tmp_path / "x.pth", recipe)
    other = load_recipe("retinanet/r18-fpn-demo")
    with pytest.raises(DetError, match="was not built from recipe retinanet/r18-fpn-demo; give its own recipe"):
        save_detector(detector, tmp_path / "x.safetensors", other)
    assert save_detector(detector, tmp_path / "new" / "x.safetensors", recipe).is_file()


def test_a_detector_of_parts_that_could_not_be_found_again_is_not_saved(tmp_path):
    recipe = load_recipe("faster-rcnn/r18-fpn-demo")
    detector = recipe.detector.build(num_classes=2)
    with isolated_manager(), pytest.raises(DetError, match="not registered: .*; a checkpoint of them could not be"):
        save_detector(detector, tmp_path / "x.safetensors", recipe)
    assert not list(tmp_path.iterdir())
