"""Writes a line to the run folder for every evaluation: an example of hooks that follow a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

JOURNAL = "journal.txt"


class Journal:
    """Writes `journal.txt` of the current run. A resumed run appends to it."""

    def __init__(self) -> None:
        self.file: Path | None = None

    def begin(self, run: str, work_dir: Path) -> None:
        """A run has started; write to its folder from now on."""
        self.file = work_dir / JOURNAL
        self._write(f"run {run}")

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """An evaluation has finished."""
        self._write(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))

    def end(self, step: int, reason: str) -> None:
        """The run has finished."""
        self._write(f"{reason} after step {step}")
        self.file = None

    def _write(self, line: str) -> None:
        if self.file is not None:
            with self.file.open("a", encoding="utf8") as file:
                file.write(f"{line}\n")
