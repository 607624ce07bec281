"""What a run has measured so far, and what follows from it: the best checkpoint, and when patience ends.

The rows of evaluations in `metrics.jsonl` are the only state, so a resumed run judges as the uninterrupted one does.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from det_core.engine.checkpoint import last_checkpoint, mark_best
from det_core.errors import DetError, first_few
from det_core.recipe import EvaluationConfig
from det_core.reports.loggers import MetricsFile

MARK = "evaluated"


class History:
    """The evaluations of a run, on the main rank."""

    def __init__(self, run: Path, file: MetricsFile, config: EvaluationConfig) -> None:
        self.run, self.file, self.config = run, file, config

    def rows(self, step: int) -> list[dict[str, Any]]:
        """Evaluations up to a step, oldest first."""
        return [r for r in self.file.rows() if MARK in r and r["step"] <= step]

    def evaluated(self, step: int) -> bool:
        """Whether the state after this step was evaluated."""
        return any(r["step"] == step for r in self.rows(step))

    def last_metrics(self, step: int) -> dict[str, float]:
        """The metrics of the last evaluation, without those of classes and losses; nothing if there was none."""
        rows = self.rows(step)
        names = [n for n in rows[-1] if n not in ("step", MARK) and "/" not in n] if rows else []
        return {n: math.nan if rows[-1][n] is None else rows[-1][n] for n in names}

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Record an evaluation, and mark the newest checkpoint as best if it is. DetError if `best` is not measured."""
        name = self.config.best
        if name not in metrics:
            names = first_few(list(metrics), 30)
            raise DetError(f"evaluation.best: no metric {name!r} was measured; there are: {names}")
        before = max((r[name] for r in self.rows(step) if r.get(name) is not None), default=-math.inf)
        checkpoint = last_checkpoint(self.run)
        if checkpoint is not None and metrics[name] > before:  # a metric that is nan is never better
            mark_best(self.run, checkpoint, name, metrics[name])
        self.file.write(step, {MARK: 1.0, **metrics})

    def best(self, step: int) -> tuple[int, float] | None:
        """Step and value of the best evaluation up to a step; None if there is none with a number."""
        found = [(r["step"], r[self.config.best]) for r in self.rows(step) if r.get(self.config.best) is not None]
        return max(found, key=lambda row: row[1], default=None)

    def without_gain(self, step: int) -> int:
        """Evaluations since the best one."""
        values = [-math.inf if r.get(self.config.best) is None else r[self.config.best] for r in self.rows(step)]
        return len(values) - 1 - values.index(max(values)) if values else 0
