"""A tiny recipe that trains in seconds, wandb without a network, and a reader of what it recorded."""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from wandb.proto import wandb_internal_pb2

from det_core import Recipe, load_recipe

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

from tiny_settings import DATA, DETECTOR, NO_DROP


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Two epochs of two steps, each evaluated."""
    settings = [*DATA, *DETECTOR, NO_DROP, "schedule.epochs=2", "evaluation.every_epochs=1"]
    tiny = load_recipe("faster-rcnn/r18-fpn-demo", settings)
    return attrs.evolve(tiny, data=attrs.evolve(tiny.data, images_per_rank=9))


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of wandb's variables is set."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "DET_WANDB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.fixture
def offline(unset: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


@attrs.define
class Recorded:
    """What a run's file has. history: the rows. files: those that are to be uploaded. artifacts: name and aliases."""

    run_id: str = ""
    project: str = ""
    config: dict[str, Any] = attrs.field(factory=dict)
    history: list[dict[str, Any]] = attrs.field(factory=list)
    summary: dict[str, Any] = attrs.field(factory=dict)
    files: list[str] = attrs.field(factory=list)
    artifacts: list[tuple[str, str, tuple[str, ...], tuple[str, ...]]] = attrs.field(factory=list)
    exit_code: int | None = None
    metrics: dict[str, str] = attrs.field(factory=dict)

    def steps(self, name: str) -> list[int]:
        return [row["step"] for row in self.history if name in row]


HEADER, BLOCK = 7, 32768  # bytes: before the first record and of each; records do not cross the blocks of a LevelDB log
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log, which wandb's files are after their first seven bytes."""
    place, parts = HEADER, b""
    while place + HEADER <= len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        parts += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""


def _read(file: Path) -> Recorded:
    found = Recorded()
    for data in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run_id, found.project = record.run.run_id, record.run.project
            for item in record.run.config.update:
                found.config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "history":
            found.history.append(
                {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            )
        elif kind == "summary":
            for item in record.summary.update:
                found.summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        elif kind == "files":
            found.files += [item.path for item in record.files.files]
        elif kind == "artifact":
            a = record.artifact
            paths = tuple(sorted(e.path for e in a.manifest.contents))
            found.artifacts.append((a.name, a.type, tuple(a.aliases), paths))
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            a = record.request.log_artifact.artifact
            found.artifacts.append(
                (a.name, a.type, tuple(a.aliases), tuple(sorted(e.path for e in a.manifest.contents)))
            )
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
        elif kind == "metric":
            found.metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
    return found


def _complete(file: Path) -> Recorded:
    """What a file has once the process that writes it has written the end of the run."""
    for _ in range(200):
        if (found := _read(file)).exit_code is not None:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{file} has no end")


@pytest.fixture
def recorded() -> Callable[[Path], list[Recorded]]:
    """The runs that wandb recorded in a run folder, oldest first."""

    def read(work_dir: Path) -> list[Recorded]:
        files = sorted(work_dir.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime)
        return [_complete(file) for file in files]

    return read
