"""examples/sweep.py (docs/running/sweeps.md): two processes on one study; one is killed, and the study completes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

optuna = pytest.importorskip("optuna", reason="the example needs optuna, which `make env` installs")

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "sweep.py"
RECIPE = """\
extends: rpn/r18-fpn-demo
data:
  train_transforms: [{type: resize, scales: [[96, 64]]}, {type: flip, probability: 0.5}]
  test_transforms: [{type: resize, scales: [[96, 64]]}]
  workers: 0
schedule: {epochs: 2, warmup_steps: 0}
evaluation: {every_epochs: 1}
"""


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    """A process of the sweep, in a process group of its own."""
    command = [sys.executable, str(SCRIPT), "--config", str(folder / "mine.yaml"), "--sweep", str(folder / "sweep")]
    return subprocess.Popen(
        [*command, "--trials", "3", "--metric", "ar1000", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_checkpoint(process: subprocess.Popen[str], sweep: Path) -> None:
    end = time.monotonic() + 240
    while not list(sweep.glob("trial-*/checkpoints/step-*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no checkpoint in time"
        time.sleep(0.1)


def test_a_sweep_outlives_a_process(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    sweep = tmp_path / "sweep"
    first = start(tmp_path)
    wait_for_checkpoint(first, sweep)
    second = start(tmp_path)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    out, err = second.communicate(timeout=400)
    assert second.returncode == 0, err[-3000:]
    assert "continues trial-0, whose process has ended" in out
    assert "best: ar1000" in out
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(sweep / "journal.log")))
    (study,) = [optuna.load_study(study_name="sweep", storage=storage)]
    states = [trial.state.name for trial in study.trials]
    assert states[0] == "FAIL"
    assert sum(state in ("COMPLETE", "PRUNED") for state in states) == 3
    assert study.trials[1].user_attrs["folder"] == "trial-0"
    assert study.trials[1].params == study.trials[0].params
    started = [json.loads(line) for line in (sweep / "trial-0" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in started] == sorted({row["step"] for row in started})  # nothing is repeated
