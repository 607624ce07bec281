"""An address of a plugin's checkpoint source, wherever a checkpoint is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import det_core
from det_core import DetError, PluginError, load_detector, load_recipe, train
from det_core.cli.main import run
from det_core.engine.checkpoint import CheckpointError
from det_core.offers import CheckpointSource
from det_core.plugins import installed_plugins
from det_core.testing.isolated_plugins import isolated_manager, make_plugin


@pytest.fixture
def store(tiny_checkpoint):
    """A source of which `store://tiny` is a run folder; the addresses that were asked for."""
    asked = []

    def fetch(address: str) -> Path:
        asked.append(address)
        if address != "store://tiny":
            raise DetError(f"{address}: not in the store")
        return tiny_checkpoint

    source = CheckpointSource(scheme="store", fetch=fetch)
    with isolated_manager(*installed_plugins(), make_plugin("store", det_checkpoint_sources=lambda: [source])):
        yield asked


def test_in_python(store, tiny_checkpoint, tmp_path):
    own = load_detector(tiny_checkpoint).state_dict()
    for address in ("store://tiny", Path("store://tiny")):
        for name, value in load_detector(address).state_dict().items():
            assert torch.equal(value, own[name])
    predictor = det_core.Predictor("store://tiny", "cpu")
    assert len(predictor(torch.zeros(3, 60, 80, dtype=torch.uint8))) > 0
    assert det_core.read_header(det_core.weights_file("store://tiny")).classes.names == (
        "class 0",
        "class 1",
        "class 2",
    )
    assert set(store) == {"store://tiny"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "--checkpoint", "store://tiny", "IMAGE", "--out", "OUT"],
        ["export", "--checkpoint", "store://tiny", "-o", "OUT.pt2", "--no-check"],
        ["proposals", "--checkpoint", "store://tiny", "-o", "OUT.safetensors", "--split", "val"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_in_commands(store, arguments, tmp_path, capsys):
    Image.new("RGB", (80, 60)).save(tmp_path / "image.png")
    names = {"IMAGE": str(tmp_path / "image.png")}
    words = [names.get(word, word.replace("OUT", str(tmp_path / "out"))) for word in arguments]
    status = run(words)
    assert status == 0, capsys.readouterr().err
    assert "store://tiny" in store


def test_a_command_says_what_the_source_says(store, capsys):
    assert run(["test", "--checkpoint", "store://other"]) == 1
    assert capsys.readouterr().err == "error: store://other: not in the store\n"


def test_training_starts_from_an_address(store, tiny_settings, tmp_path):
    recipe = load_recipe("faster-rcnn/r18-fpn-demo", [s for s in tiny_settings if "mask_head" not in s])
    assert train(recipe, work_dir=tmp_path, init="store://tiny", max_steps=1, quiet=True).step == 1
    assert store == ["store://tiny"]


def test_other_addresses_are_what_they_were(store, tmp_path):
    with pytest.raises(CheckpointError, match="^s3://bucket/model: a web address; only local files are read"):
        load_detector("s3://bucket/model")
    local = tmp_path / "store:" / "tiny"
    local.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="contains no checkpoint"):
        load_detector(local)
    assert store == []


def test_without_its_plugin_it_says_what_to_install():
    with isolated_manager(), pytest.raises(PluginError) as caught:
        load_detector("hf://me/cats")
    assert str(caught.value).endswith(
        "det-plugin-hub provides hf://: pip install ./plugins/hub (from a checkout of det)"
    )
