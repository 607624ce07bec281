"""Pages that answer questions: their messages are printed, their settings and commands exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest
import torch
import yaml
from PIL import Image

from det_core.cli.main import cli, run
from det_core.load import load_recipe

DOCS = Path(__file__).resolve().parents[1] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf8")


# Troubleshooting: what each heading quotes is printed by a command.


def _data(folder: Path, box: list[int]) -> None:
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(folder / "images" / "a.png")
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 400, "iscrowd": 0}
    plain = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "bolt"}],
        "annotations": [annotation],
    }
    (folder / "train.json").write_text(json.dumps(plain))


@pytest.fixture
def mistakes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _data(tmp_path / "boxes", [5, 5, 20, 20])
    _data(tmp_path / "outside", [5, 5, 90, 20])
    torch.save({"state_dict": {"backbone.conv1.weight": torch.zeros(64, 3, 7, 7)}}, "old.pth")
    Path("mmdet.py").write_text("model = dict(type='FasterRCNN')\n")
    Path("d2.yaml").write_text("MODEL: {META_ARCHITECTURE: RetinaNet}\n")


DEMO = "train --recipe rpn/r18-fpn-demo --set data.workers=0"
COMMANDS = {
    "torch sees no GPU": ["train --recipe faster-rcnn/r18-fpn-demo --data boxes --work-dir run --device cuda"],
    "no recipe": ["train --recipe faster-rcnn/r50 --data boxes --work-dir run"],
    "already holds a run": [f"{DEMO} --work-dir run --max-steps 1", f"{DEMO} --work-dir run --max-steps 1"],
    "a configuration in Python, not a recipe": ["train --config mmdet.py --data boxes --work-dir run"],
    "found a .pth file, expected a checkpoint of det": ["predict --checkpoint old.pth boxes/images"],
    "reaches outside its image": ["train --recipe faster-rcnn/r18-fpn-demo --data outside --work-dir run"],
    "masks are required, but no annotation has one": [
        "train --recipe mask-rcnn/r50-fpn-1x --data boxes --work-dir run"
    ],
    "does not exist": ["train --recipe faster-rcnn/r18-fpn-demo --data nowhere --work-dir run"],
    "the loss is not finite": [
        f"{DEMO} --work-dir run --max-steps 8 --set optimizer.lr=1e9 --set schedule.warmup_steps=0 "
        "--set schedule.clip_norm=null"
    ],
}


def test_every_message_of_the_page_has_a_command():
    quoted = re.findall(r"^### `(.*)`$", page("troubleshooting.md"), re.MULTILINE)
    assert sorted(quoted) == sorted(COMMANDS)


@pytest.mark.parametrize("message", COMMANDS)
def test_a_message_of_the_page_is_printed(message, mistakes, capsys):
    if message == "torch sees no GPU" and torch.cuda.is_available():
        pytest.skip("torch sees a GPU")
    *before, last = COMMANDS[message]
    for command in before:
        assert run(shlex.split(command)) == 0
    capsys.readouterr()
    assert run(shlex.split(last)) == 1
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_configuration_of_detectron2_is_told_apart(mistakes, capsys):
    assert run(["train", "--config", "d2.yaml", "--data", "boxes", "--work-dir", "run"]) == 1
    assert "d2.yaml: a configuration of detectron2, not a recipe; make one of it: det-core import-config d2.yaml" in (
        " ".join(capsys.readouterr().err.split())
    )


# Settings and commands that tables and texts name.

PAGES = ("dictionary.md", "troubleshooting.md", "reproducibility.md", "versioning.md")
PAGES += ("running/clusters.md", "running/sweeps.md", "running/batch_prediction.md")
SETTING = re.compile(r"`((?:detector|data|optimizer|schedule|evaluation)\.[\w.]+)(?::[^`]*)?`")
RECIPE = load_recipe("mask-rcnn/r50-fpn-1x").to_plain()


@pytest.mark.parametrize("name", [name for name in PAGES if SETTING.search(page(name))])
def test_settings_that_a_page_names_exist(name):
    for path in SETTING.findall(page(name)):
        node = RECIPE
        for step in path.split("."):
            assert step in node, path
            node = node[step]


COMMAND = re.compile(r"(?:det-core|-m det_core) ([a-z-]+)((?: [^`\n|]*)?)")


@pytest.mark.parametrize("name", [name for name in PAGES if COMMAND.search(page(name))])
def test_commands_that_a_page_names_have_these_options(name):
    found = COMMAND.findall(page(name).replace("\\\n", " "))
    for verb, rest in found:
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None, verb
        if isinstance(command, click.Group):
            continue
        known = {option for parameter in command.params for option in parameter.opts}
        for option in re.findall(r"(?<![\w-])--[a-z-]+", rest):
            assert option in known, f"{name}: det-core {verb} {option}"


def test_the_job_of_kubernetes():
    (text,) = re.findall(r"```yaml\n(.*?)```", page("running/clusters.md"), re.DOTALL)
    job = yaml.safe_load(text)
    (container,) = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    volumes = {v["name"] for v in job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert container["command"][:3] == ["torchrun", "-m", "det_core"]
    words = [*container["command"][3:], *container["args"]]
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    parsed = command.make_context("train", words[1:], resilient_parsing=False).params
    assert parsed["resume"] is True


def test_the_recipe_of_reproducibility(tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", page("reproducibility.md"), re.DOTALL)
    (tmp_path / "mine.yaml").write_text(text)
    assert load_recipe(tmp_path / "mine.yaml").schedule.seed == 7
