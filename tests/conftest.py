"""What the tests that span packages share: a tiny recipe, and processes whose work can be counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from attrs import frozen
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "tools"))

from distributions import Built, built_once
from tiny_settings import DATA, DETECTOR, MASKS, NO_DROP

TINY = (*DATA, *DETECTOR, MASKS, "schedule.epochs=2", NO_DROP)


@pytest.fixture(scope="session")
def tiny_settings() -> tuple[str, ...]:
    """`--set` values that make `mask-rcnn/r18-fpn-demo` tiny."""
    return TINY


@pytest.fixture(scope="session")
def make_tiny_checkpoint(tmp_path_factory):
    """Make a run folder with a tiny detector of a demo recipe that was never trained; every box passes its threshold.

    `make_tiny_checkpoint("faster-rcnn/r18-fpn-demo", "detector.roi_head.max_detections=5")`
    """

    def make(name: str, *overrides: str) -> Path:
        import torch

        from det_core import load_recipe
        from det_core.engine.checkpoint import Header, save_checkpoint
        from det_core.plugins import plugin_manager
        from det_core.structures import Classes

        tiny = [s for s in TINY if "mask_head" not in s or name.startswith("mask")]
        tiny.append("detector.roi_head.score_threshold=0.0")
        if name.startswith("rpn/"):
            tiny = [s for s in tiny if not s.startswith("detector.roi_head")]
        recipe = load_recipe(name, [*tiny, *overrides])
        classes = Classes.numbered(3)
        torch.manual_seed(0)
        detector = recipe.detector.build(classes=classes)
        run = tmp_path_factory.mktemp("run")
        header = Header(recipe=recipe, classes=classes, plugins=plugin_manager().versions())
        save_checkpoint(run, header, detector.state_dict())
        return run

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(make_tiny_checkpoint) -> Path:
    """A run folder with a tiny Faster R-CNN that was never trained."""
    return make_tiny_checkpoint("faster-rcnn/r18-fpn-demo")


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Built:
    """Source distributions and wheels of all packages."""
    return built_once(tmp_path_factory)


@pytest.fixture
def run_python():
    """Run a Python command line to its end in a process of its own: `run_python("-m", "det_core", ...)`."""

    def run(*arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


# Runs a det-core command line in a fresh process and writes what it took as the last line of stderr.
COUNTING = """
import json, sys
calls = 0
def count(frame, event, argument):
    global calls
    calls += event == "call"
sys.setprofile(count)
from det_core.cli.main import run
status = run(sys.argv[1:])
sys.setprofile(None)
heavy = sorted({"torch", "torchvision", "numpy", "huggingface_hub", "mlflow", "wandb"} & sys.modules.keys())
modules = sum(not name.startswith("det_") for name in sys.modules)
print(json.dumps({"heavy": heavy, "modules": modules, "calls": calls}), file=sys.stderr)
sys.exit(status)
"""


@frozen
class Counted:
    """A finished command line, and counts that do not depend on how busy the machine is.

    heavy: which of torch, torchvision, numpy and what hub, mlflow and wandb stand on were imported.
    modules: imported modules, without those of det.
    calls: calls of Python functions, imports included.
    """

    status: int
    output: str
    errors: list[str]
    heavy: list[str]
    modules: int
    calls: int


@pytest.fixture(scope="session")
def run_counted():
    """Run a det-core command line to its end: `run_counted("recipes", cwd=folder)`."""

    def run(*arguments: str, cwd: Path | None = None, **environment: str) -> Counted:
        done = subprocess.run(
            [sys.executable, "-c", COUNTING, *arguments],
            cwd=cwd,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        *errors, counts = done.stderr.splitlines()
        assert counts.startswith("{"), done.stderr
        return Counted(done.returncode, done.stdout, errors, **json.loads(counts))

    return run


def train_arguments(work_dir: Path, *more: str, settings: tuple[str, ...] = TINY) -> list[str]:
    """The command line of a tiny run that logs every step."""
    arguments = ["-m", "det_core", "train", "--recipe", "mask-rcnn/r18-fpn-demo", "--work-dir", str(work_dir)]
    for setting in settings:
        arguments += ["--set", setting]
    return [*arguments, "--log-every", "1", *more]


@pytest.fixture
def arguments():
    """`train_arguments`."""
    return train_arguments


@pytest.fixture(scope="module")
def module_arguments():
    """`train_arguments`, for fixtures of a module."""
    return train_arguments


@pytest.fixture(scope="session")
def labelled(tmp_path_factory) -> Path:
    """Six images in COCO's format, for training and validation, with boxes and masks of `class 0` to `class 2`."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 7):
        width, height = 150 + 10 * number, 120
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(root / "images" / f"{number}.png")
        images.append({"id": 11 * number, "file_name": f"{number}.png", "width": width, "height": height})
        for label in range(3):
            x, y, w, h = 10 + 30 * label, 20, 40 + 10 * label, 70
            ring = [x, y, x + w, y, x + w, y + h, x, y + h]
            record = {"id": len(annotations) + 1, "image_id": 11 * number, "category_id": label + 1, "iscrowd": 0}
            annotations.append({**record, "bbox": [x, y, w, h], "area": w * h, "segmentation": [ring]})
    categories = [{"id": i, "name": name} for i, name in enumerate(("class 0", "class 1", "class 2"), 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    for split in ("train", "val"):
        (root / f"instances_{split}.json").write_text(json.dumps(content))
    return root
