"""A tiny recipe that trains in seconds, and a store of MLflow in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import mlflow
import pytest

from det_core import Recipe, load_recipe

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

from tiny_settings import DATA, DETECTOR, NO_DROP


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Two epochs of two steps."""
    tiny = load_recipe(
        "faster-rcnn/r18-fpn-demo", [*DATA, *DETECTOR, NO_DROP, "schedule.epochs=2", "evaluation.every_epochs=1"]
    )
    return attrs.evolve(tiny, data=attrs.evolve(tiny.data, images_per_rank=9))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty store, which is not yet set."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "DET_MLFLOW_CHECKPOINTS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert mlflow.active_run() is None
    return (tmp_path / "store").as_uri()


@pytest.fixture
def tracked(store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The store, which is set."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    return store
