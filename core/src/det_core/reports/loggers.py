"""What a run leaves behind and shows: metrics file, TensorBoard events, progress in the terminal."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from det_core.engine.checkpoint import kept_of
from det_core.safe_write import WriteError, cause, write_text

METRICS = "metrics.jsonl"

log = logging.getLogger(__name__)


class MetricsFile:
    """`metrics.jsonl`: one JSON object per logged step or evaluation, appended and flushed at once."""

    def __init__(self, run: Path) -> None:
        self.path = run / METRICS

    def rows(self) -> list[dict[str, Any]]:
        """All rows. A last line that a kill cut short is left out; other damaged lines are too, with a warning."""
        if not self.path.is_file():
            return []
        rows = []
        lines = self.path.read_text(encoding="utf8", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            row = _row(line)
            if row is not None:
                rows.append(row)
            elif number < len(lines):
                log.warning("%s:%d: not a row of metrics; it is left out", self.path, number)
        return rows

    def rewind(self, step: int) -> None:
        """Forget what was written after `step`: a resumed run writes it again."""
        kept = [json.dumps(row) for row in self.rows() if row["step"] <= step]
        write_text(self.path, "".join(f"{line}\n" for line in kept))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append one row; numbers that JSON has no word for become null. WriteError if it cannot be written."""
        row = {"step": step, **{k: v if math.isfinite(v) else None for k, v in values.items()}}
        try:
            with self.path.open("a", encoding="utf8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise WriteError.of(self.path, error, kept_of(self.path.parent)) from error


def _row(line: str) -> dict[str, Any] | None:
    """A line as a row; None if it is not an object with a step."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and type(row.get("step")) is int else None


class TensorBoard:
    """TensorBoard events, where the package is installed; else nothing.

    They repeat `metrics.jsonl`: if they cannot be written, training goes on without them. The package's own writer has
    a thread, whose error would be a traceback.
    """

    def __init__(self, run: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = run / "tensorboard", say
        self.file: BinaryIO | None = None
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.summary.writer.record_writer import RecordWriter
            from torch.utils.tensorboard import summary
        except ImportError:
            say("no TensorBoard events: the package is not installed (pip install tensorboard)")
            return
        self._event, self._records, self._summary = Event, RecordWriter, summary
        name = f"events.out.tfevents.{int(time.time()):010d}.{platform.node()}.{os.getpid()}.0"
        with self._going_on_without():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.file = (self.folder / name).open("wb")
            self._add(file_version="brain.Event:2")
            self.file.flush()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append values to the events, and flush."""
        if self.file is not None:
            with self._going_on_without():
                for name, value in values.items():
                    self._add(step=step, summary=self._summary.scalar(name, value))
                self.file.flush()

    def _add(self, **content: Any) -> None:
        self._records(self.file).write(self._event(wall_time=time.time(), **content).SerializeToString())

    @contextmanager
    def _going_on_without(self) -> Iterator[None]:
        """Inside, an error of the system ends the events, with a line that says so."""
        try:
            yield
        except OSError as error:
            self.close()
            self.say(f"no more TensorBoard events: {self.folder} cannot be written ({cause(error)})")

    def close(self) -> None:
        """Close the file; what could not be written is left out."""
        if self.file is not None:
            with suppress(OSError):
                self.file.close()
            self.file = None


class Terminal:
    """Lines and a progress bar for the user; on a terminal the bar is live, elsewhere a line appears now and then."""

    def __init__(self, *, quiet: bool = False, file: TextIO | None = None, seconds_between_lines: float = 15.0) -> None:
        self.console = Console(
            file=file or sys.stdout, quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False
        )
        self.seconds = seconds_between_lines
        self._last_line = 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def say(self, text: str) -> None:
        """A line (or several) for the user."""
        self.console.print(text)

    def start(self, label: str, total: int, done: int = 0) -> None:
        """Begin a bar; ends the one before."""
        self.stop()
        self._last_line = time.monotonic()
        self._began, self._first = self._last_line, done
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._task = self._bar.add_task(label, total=total, completed=done, text="")
            self._bar.start()
        self._label, self._total = label, total

    def advance(self, done: int, text: str = "") -> None:
        """Show how far things are."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, text=text)
        elif time.monotonic() - self._last_line >= self.seconds or done == self._total:
            self._last_line = time.monotonic()
            pace = (self._last_line - self._began) / max(1, done - self._first)
            left = _duration(pace * (self._total - done))
            self.say("  ".join(part for part in (f"{self._label} {done}/{self._total}", text, f"left {left}") if part))

    def stop(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
