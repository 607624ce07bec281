"""What a run folder or a file says of how good a checkpoint is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from det_core.errors import DetError

METRICS_FILE, ANALYSIS_FILE = "metrics.jsonl", "analysis/analysis.json"
EVALUATED = "evaluated"  # in rows of metrics.jsonl: this row is an evaluation
LOSSES = "val_loss"


class ResultsError(DetError):
    """A file with metrics cannot be read."""


@frozen(kw_only=True)
class Results:
    """Metrics as fractions of 1: by name, and by class name and metric. analysis: the summary of `det-core analyze`."""

    metrics: dict[str, float] = field(factory=dict)
    per_class: dict[str, dict[str, float]] = field(factory=dict)
    analysis: dict[str, float] = field(factory=dict)

    def to_json(self) -> str:
        """As `det-core test --json` writes them."""
        return json.dumps({"metrics": self.metrics, "per_class": self.per_class}, indent=2) + "\n"


def results_of_file(path: str | Path) -> Results:
    """The metrics in a file that `det-core test --json` wrote; ResultsError for another file."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf8"))
        per_class = {str(name): _numbers(values) for name, values in content["per_class"].items()}
        return Results(metrics=_numbers(content["metrics"]), per_class=per_class)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path}: not a file of `det-core test --json` ({type(error).__name__}: {error})") from None


def results_of_run(run: Path, step: int) -> Results:
    """The evaluation of a run after a step, and its analysis, as far as they are there."""
    metrics: dict[str, float] = {}
    per_class: dict[str, dict[str, float]] = {}
    for name, value in _evaluation(run / METRICS_FILE, step).items():
        metric, of_class, class_name = name.partition("/")
        if metric == LOSSES:
            continue
        if of_class:
            per_class.setdefault(class_name, {})[metric] = value
        else:
            metrics[metric] = value
    return Results(metrics=metrics, per_class=per_class, analysis=_analysis(run / ANALYSIS_FILE))


def _evaluation(file: Path, step: int) -> dict[str, float]:
    """The last row of an evaluation after this step; empty if there is none."""
    found: dict[str, float] = {}
    if file.is_file():
        for line in file.read_text(encoding="utf8", errors="replace").splitlines():
            row = _object(line)
            if EVALUATED in row and row.get("step") == step:
                found = {name: value for name, value in _numbers(row).items() if name not in ("step", EVALUATED)}
    return found


def _analysis(file: Path) -> dict[str, float]:
    """The numbers of an analysis' summary, with the names of parts joined by a space; empty without one."""
    if not file.is_file():
        return {}
    summary = _object(file.read_text(encoding="utf8", errors="replace")).get("summary")
    flat: dict[str, float] = {}
    for name, value in summary.items() if isinstance(summary, dict) else ():
        if isinstance(value, dict):
            flat |= {f"{name} {inner}": number for inner, number in _numbers(value).items()}
        else:
            flat |= _numbers({name: value})
    return flat


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The values that are finite numbers."""
    return {
        str(name): float(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }
