"""Hooks of this plugin: a run of MLflow for each training run, if MLFLOW_TRACKING_URI is set. Imports no mlflow."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from det_core.hookspecs import hookimpl
from det_core.recipe import Recipe

if TYPE_CHECKING:
    from det_plugin_mlflow.tracked_run import TrackedRun

SWITCH = "MLFLOW_TRACKING_URI"

_run: TrackedRun | None = None  # of the training run of this process


@hookimpl
def det_run_started(recipe: Recipe, work_dir: Path, step: int, say: Callable[[str], None]) -> None:
    global _run
    _run = None
    if os.environ.get(SWITCH):
        from det_plugin_mlflow.tracked_run import TrackedRun

        _run = TrackedRun(recipe, work_dir, step, say)


@hookimpl
def det_step_finished(step: int, metrics: dict[str, float]) -> None:
    if _run is not None:
        _run.log(step, metrics)


@hookimpl
def det_evaluated(step: int, metrics: dict[str, float]) -> None:
    if _run is not None:
        _run.log(step, metrics)
        _run.send()


@hookimpl
def det_checkpoint_saved(checkpoint: Path) -> None:
    if _run is not None:
        _run.log_checkpoint(checkpoint)


@hookimpl
def det_run_finished(step: int, reason: str, best: Path | None) -> None:
    global _run
    run, _run = _run, None
    if run is not None:
        run.end(step, reason, best)
