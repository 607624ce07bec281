"""A run folder with a tiny detector, and a stand-in for the Hub that huggingface_hub talks to."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import huggingface_hub.utils._http
import pytest
import torch
from PIL import Image

from det_core import load_recipe
from det_core.engine.checkpoint import Header, mark_best, save_checkpoint
from det_core.plugins import plugin_manager
from det_core.structures import Classes

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

from stand_in_hub import TOKEN, StandInHub, running
from tiny_settings import DATA, DETECTOR

CLASSES = Classes(names=("cat", "do|g"), ids=(1, 2))
STEP = 7


def write_run(run: Path, *settings: str) -> Path:
    """A run folder as training leaves it: an untrained tiny Faster R-CNN, its evaluation, curves and a picture."""
    plain = ["detector.roi_head.score_threshold=0.0", "detector.roi_head.max_detections=5"]
    recipe = load_recipe("faster-rcnn/r18-fpn-demo", [*DATA, *DETECTOR, *plain, *settings])
    torch.manual_seed(0)
    detector = recipe.detector.build(classes=CLASSES)
    versions = plugin_manager().versions()
    header = Header(recipe=recipe, classes=CLASSES, plugins=versions, step=STEP)
    mark_best(run, save_checkpoint(run, header, detector.state_dict()), "box_ap", 0.25)
    rows = [
        {"step": STEP, "loss/total": 1.5, "lr": 0.1},
        {"step": 5, "evaluated": 1.0, "box_ap": 0.1},
        {
            "step": STEP,
            "evaluated": 1.0,
            "box_ap": 0.25,
            "box_ap50": None,
            "box_ap/cat": 0.3,
            "box_ap/do|g": 0.2,
            "val_loss/total": 2.0,
        },
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "pictures").mkdir()
    for name in ("curves.png", "pictures/a.png"):
        Image.new("RGB", (4, 4)).save(run / name)
    return run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "mine")


@pytest.fixture(scope="session")
def run_of_a_user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose recipe names folders of this machine."""
    settings = ("data.root=/data/of/cats", "detector.backbone.pretrained=/data/resnet.pth")
    return write_run(tmp_path_factory.mktemp("runs") / "cats", *settings)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandInHub]:
    """The server, an empty cache, and an access token of its owner."""
    with running() as hub:
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in (
            ("ENDPOINT", hub.url),
            ("HUGGINGFACE_CO_URL_TEMPLATE", template),
            ("HF_HUB_CACHE", str(tmp_path / "cache")),
            ("HF_HUB_DISABLE_XET", True),
            ("HF_HUB_OFFLINE", False),
        ):
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield hub


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub tries again at once."""
    clock = SimpleNamespace(sleep=lambda seconds: None, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(huggingface_hub.utils._http, "time", clock)


@pytest.fixture
def signed_out(hub: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody is signed in."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
