"""A run folder, for plugins that follow runs (`det_run_started` and the hooks after it): what there is to log."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from attrs import frozen

from det_core.errors import DetError, nearest
from det_core.safe_write import write_text

ANALYSIS = "analysis"  # in a run folder: what `det-core analyze` writes
ANALYSIS_PAGE = "index.html"  # in it

Value = str | int | float | bool | None
Checkpoints = Literal["none", "best", "all"]


@frozen
class RunFolder:
    """The folder of a training run, `work_dir` of `det_run_started`."""

    path: Path

    def facts(self) -> dict[str, Any]:
        """`run.json`: classes, plugins and their versions, device, seed; empty if it cannot be read."""
        return _object(self.path / "run.json")

    def best(self) -> tuple[str, float] | None:
        """The name and value of the metric of the best checkpoint; None if there is none."""
        found = _object(self.path / "checkpoints" / "best.json")
        name, value = found.get("metric"), found.get("value")
        return (name, float(value)) if isinstance(name, str) and isinstance(value, (int, float)) else None

    def documents(self) -> list[Path]:
        """`recipe.yaml` and `run.json`."""
        return [file for name in ("recipe.yaml", "run.json") if (file := self.path / name).is_file()]

    def curves(self) -> Path | None:
        """`curves.png`, drawn when the run ends; None before."""
        file = self.path / "curves.png"
        return file if file.is_file() else None

    def pictures(self) -> list[Path]:
        """`pictures/*.png`, drawn when the run ends: detections beside annotations."""
        return sorted((self.path / "pictures").glob("*.png"))

    def analysis(self) -> Path | None:
        """`analysis/`, with the page `index.html`; None if the run was not analysed."""
        folder = self.path / ANALYSIS
        return folder if (folder / ANALYSIS_PAGE).is_file() else None

    def analysis_to_log(self, tracker: str) -> tuple[Path, dict[str, str]]:
        """The folder of the analysis, and what a tracker remembers of its run, to log an analysis after training.

        Raises:
            DetError: if the run was not analysed, or the tracker has no run of it.
        """
        folder, run = self.analysis(), self.remembered(tracker)
        if folder is None:
            raise DetError(f"{self.path}: has no analysis/index.html; analyse the run first")
        if not run:
            raise DetError(f"{self.path}: has no {tracker}.json, so it was not logged there")
        return folder, run

    def remembered(self, tracker: str) -> dict[str, str]:
        """What a tracker remembers of its own run, to continue it when training is resumed; empty if nothing."""
        return {name: value for name, value in _object(self._own(tracker)).items() if isinstance(value, str)}

    def remember(self, tracker: str, values: Mapping[str, str]) -> None:
        """Write `TRACKER.json`; WriteError if it cannot be written."""
        write_text(self._own(tracker), json.dumps(dict(values), indent=2) + "\n")

    def _own(self, tracker: str) -> Path:
        return self.path / f"{tracker}.json"


def weights_of(checkpoint: Path) -> Path:
    """The weights of a checkpoint's folder: a safetensors file that everything that takes a checkpoint reads."""
    return checkpoint / "model.safetensors"


def flat_settings(plain: Mapping[str, Any]) -> dict[str, Value]:
    """The settings of a plain recipe by path, such as `detector.backbone.depth` and `data.train_transforms.0.type`.

    A list of plain values is one text, such as `[8, 11]`.
    """
    flat: dict[str, Value] = {}
    for name, value in plain.items():
        if isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, Mapping):
            inner = flat_settings(value)
            flat |= {f"{name}.{key}": item for key, item in inner.items()}
        else:
            flat[name] = str(list(value)) if isinstance(value, (list, tuple)) else value
    return flat


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are numbers: AP of a class without objects, for example, is none."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def checkpoints_to_log(variable: str) -> Checkpoints:
    """Which checkpoints a tracker logs, as an environment variable says: `none` (if it is not set), `best` or `all`.

    Raises:
        DetError: for another value.
    """
    value = os.environ.get(variable) or "none"
    for allowed in get_args(Checkpoints):
        if value == allowed:
            choice: Checkpoints = allowed
            return choice
    names = get_args(Checkpoints)
    raise DetError(f"{variable}: found {value!r}, expected {', '.join(names)}{nearest(value, names)}")


def _object(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is none, or it cannot be read."""
    try:
        found = json.loads(file.read_text(encoding="utf8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
