"""A plugin from outside: the package in `examples/`, installed apart from this environment, does all that ours do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "det-plugin-double-head"
DISTRIBUTION, PLUGIN, RECIPE = "det-plugin-double-head", "double_head", "double-head/plain-fpn-demo"
STEPS = 3  # an epoch of the sample's 17 images in batches of 6

SMALL = """
extends: double-head/plain-fpn-demo
detector:
  backbone: {width: 16, depth: 1}
  neck: {channels: 32}
  dense_head: {channels: 32}
  roi_head: {type: double_head, fc_channels: 32, conv_channels: 32, num_blocks: 1}
data:
  workers: 0
  images_per_rank: 6
  train_transforms: [{type: resize, scales: [[64, 64]]}, {type: flip}]
  test_transforms: [{type: resize, scales: [[64, 64]]}]
schedule: {epochs: 1, learning_rate: {milestones: []}}
"""

IN_PYTHON = """
import sys

import attrs
import torch

from det_core import DetectorConfig, load_recipe, train
from det_plugin_double_head import DoubleHeadConfig, PlainNetConfig
from det_plugin_fpn import FPNConfig
from det_plugin_rcnn import RPNConfig

torch.set_num_threads(1)
small = load_recipe(sys.argv[1])
detector = DetectorConfig(
    backbone=PlainNetConfig(width=8, depth=2),
    neck=FPNConfig(channels=16),
    dense_head=RPNConfig(channels=16),
    roi_head=DoubleHeadConfig(fc_channels=16, conv_channels=16),
)
recipe = attrs.evolve(small, name="composed", detector=detector)
result = train(recipe, work_dir=sys.argv[2], device="cpu", max_steps=2, quiet=True)
print(type(result.detector.roi_head).__name__, type(result.detector.backbone).__name__, result.step)
"""


class Environment:
    """This environment with the stranger's package on its path, or without."""

    def __init__(self, site: Path | None) -> None:
        self.variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DET_PLUGINS")}
        self.variables["OMP_NUM_THREADS"] = "1"
        if site is not None:
            self.variables["PYTHONPATH"] = str(site)

    def python(self, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=self.variables, cwd=cwd)

    def det_core(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "det_core", *arguments)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """What it printed; the test fails with all of it where the command did."""
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's folder far from this repository: nothing in it can lean on its surroundings."""
    copy = tmp_path_factory.mktemp("elsewhere") / "package"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".*"))
    return copy


@pytest.fixture(scope="module")
def environment(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    site = tmp_path_factory.mktemp("site")
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    succeeded(Environment(None).python(*pip, "--target", site, package))
    return Environment(site)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("config") / "small.yaml"
    file.write_text(SMALL, encoding="utf8")
    return file


@pytest.fixture(scope="module")
def run_folder(environment: Environment, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the whole small recipe from YAML: three steps, then an evaluation."""
    folder = tmp_path_factory.mktemp("run") / "run"
    succeeded(environment.det_core("train", "--config", config, "--work-dir", folder, "--device", "cpu"))
    return folder


def test_it_is_not_part_of_this_environment() -> None:
    assert f'"{DISTRIBUTION}"' not in succeeded(Environment(None).det_core("plugins", "--json"))


def test_det_lists_it_with_what_it_adds(environment: Environment) -> None:
    states = {p["name"]: p for p in json.loads(succeeded(environment.det_core("plugins", "--json")))}
    assert states[PLUGIN] == {
        "name": PLUGIN,
        "distribution": DISTRIBUTION,
        "version": "0.1.0",
        "state": "ok",
        "provides": {
            "backbone": ["plain_net"],
            "roi_head": ["double_head"],
            "recipe": [RECIPE],
            "run hook": ["det_run_started", "det_evaluated", "det_run_finished"],
        },
        "errors": [],
    }
    row = next(line for line in succeeded(environment.det_core("plugins")).splitlines() if DISTRIBUTION in line)
    assert "backbone: plain_net; roi_head: double_head; 1 recipe" in row
    assert f'"{RECIPE}"' in succeeded(environment.det_core("recipes", "--json"))


def test_it_trains_from_yaml(run_folder: Path) -> None:
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text(encoding="utf8").splitlines()]
    first, last = rows[0], rows[-1]
    assert {"loss/rpn_cls", "loss/rpn_box", "loss/roi_cls", "loss/roi_box"} < first.keys()
    assert (last["step"], "box_ap" in last) == (STEPS, True)
    assert (run_folder / "checkpoints" / f"step-{STEPS:07}" / "model.safetensors").is_file()
    assert "type: double_head" in (run_folder / "recipe.yaml").read_text(encoding="utf8")


def test_its_hooks_follow_the_run(run_folder: Path) -> None:
    lines = (run_folder / "journal.txt").read_text(encoding="utf8").splitlines()
    assert len(lines) == 3
    assert (lines[0], lines[2]) == ("run small", f"finished after step {STEPS}")
    assert lines[1].startswith(f"step {STEPS}: box_ap ")


def test_it_trains_from_python(environment: Environment, config: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(IN_PYTHON, encoding="utf8")
    assert succeeded(environment.python(script, config, tmp_path / "run")) == "DoubleHead PlainNet 2\n"
    assert (tmp_path / "run" / "checkpoints" / "step-0000002" / "model.safetensors").is_file()


def test_plugin_means_its_recipe(environment: Environment, tmp_path: Path) -> None:
    sizes = [f"data.{kind}_transforms=[{{type: resize, scales: [[64, 64]]}}]" for kind in ("train", "test")]
    done = environment.det_core(
        "train", "--plugin", PLUGIN, "--max-steps", 1, "--device", "cpu", "--work-dir", tmp_path / "run",
        "--set", "data.workers=0", *(word for size in sizes for word in ("--set", size)),
    )  # fmt: skip
    out = succeeded(done)
    assert out.startswith(f"--plugin {PLUGIN}: recipe {RECIPE} on the bundled sample, because no --data was given\n")
    assert "stopped after step 1 of 216" in out


def test_it_passes_the_contract_checks(environment: Environment, package: Path) -> None:
    code = f"from det_core.testing.contract_checks import check_plugin; check_plugin({PLUGIN!r})"
    succeeded(environment.python("-c", code))


def test_its_own_tests_pass(environment: Environment, package: Path) -> None:
    out = succeeded(environment.python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=package))
    assert " passed" in out
    assert "skipped" not in out


def test_without_it_its_checkpoint_names_what_is_missing(run_folder: Path, tmp_path: Path) -> None:
    image = next((run_folder / "pictures").iterdir())
    for command in (
        ("predict", "--checkpoint", run_folder, "--out", tmp_path, image),
        ("test", "--checkpoint", run_folder),
    ):
        done = Environment(None).det_core(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert "detector.backbone.type: unknown type 'plain_net' for backbone" in done.stderr
        assert "detector.roi_head.type: unknown type 'double_head' for roi_head" in done.stderr
        assert f"plugins that are not installed: {DISTRIBUTION} 0.1.0 (pip install {DISTRIBUTION})" in done.stderr, (
            done.stderr
        )
        assert "Traceback" not in done.stderr


def test_with_it_its_checkpoint_opens(environment: Environment, run_folder: Path, tmp_path: Path) -> None:
    image = next((run_folder / "pictures").iterdir())
    out = tmp_path / "out"
    succeeded(environment.det_core("predict", "--checkpoint", run_folder, "--device", "cpu", "--out", out, image))
    assert (out / "pictures" / image.name).is_file()
    assert json.loads((out / "predictions.jsonl").read_text(encoding="utf8"))["file"] == str(image)
