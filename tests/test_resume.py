"""A run that was killed, or asked to leave, goes on bit for bit; checkpoints appear whole or not at all."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from det_core.engine import checkpoint as checkpoints

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
STEPS = 18  # two epochs of 17 images, two at a time


def losses(run: Path) -> dict[int, tuple[float, ...]]:
    """Every loss of every logged step, as written; a line that a kill cut short is left out."""
    steps = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if "lr" in row:
            steps[row["step"]] = tuple(v for k, v in row.items() if k.startswith("loss/"))
    return steps


def run_to_end(command: list[str]) -> str:
    done = subprocess.run([sys.executable, *command], env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (run / "metrics.jsonl").is_file() and max(losses(run), default=0) >= step:
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, module_arguments):
    """A run that nobody disturbs, without loader processes."""
    folder = tmp_path_factory.mktemp("whole")
    run_to_end(module_arguments(folder))
    assert sorted(losses(folder)) == list(range(1, STEPS + 1))
    return folder


@pytest.mark.slow
def test_killed_at_a_random_step_and_resumed_it_gives_the_same_losses(tmp_path, arguments, whole):
    seed = random.randrange(1 << 30)
    step = random.Random(seed).randrange(2, STEPS)
    process = start(arguments(tmp_path, "--save-every", "2"))
    wait_for_step(tmp_path, step, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, f"seed {seed}"
    output = run_to_end(arguments(tmp_path, "--save-every", "2", "--resume"))
    assert losses(tmp_path) == losses(whole), f"seed {seed}, killed after step {step}"
    assert "resumed at step" in output or checkpoints.last_checkpoint(tmp_path) is not None


@pytest.mark.slow
def test_loader_processes_change_nothing(tmp_path, arguments, whole):
    run_to_end(arguments(tmp_path, "--set", "data.workers=3"))
    assert losses(tmp_path) == losses(whole)


@pytest.mark.slow
def test_sigterm_saves_and_leaves_with_status_0(tmp_path, arguments, whole):
    process = start(arguments(tmp_path))
    wait_for_step(tmp_path, 3, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    last = checkpoints.last_checkpoint(tmp_path)
    assert last is not None
    step = checkpoints.read_header(last / checkpoints.WEIGHTS).step
    assert 3 <= step < STEPS
    assert f"stopped after step {step} of {STEPS}" in output
    run_to_end(arguments(tmp_path, "--resume"))
    assert losses(tmp_path) == losses(whole)


@pytest.mark.slow
def test_a_moving_average_and_accumulation_resume_bit_for_bit_too(tmp_path, arguments):
    more = ("--set", "schedule.ema_decay=0.9", "--set", "schedule.accumulate=2", "--set", "schedule.epochs=1")
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    run_to_end(arguments(straight, *more))
    run_to_end(arguments(broken, *more, "--max-steps", "2"))
    run_to_end(arguments(broken, *more, "--resume"))
    assert losses(broken) == losses(straight)
    assert len(losses(straight)) == 5  # 9 batches, two a step
    ends = [
        checkpoints.read_weights(checkpoints.last_checkpoint(run) / checkpoints.WEIGHTS) for run in (straight, broken)
    ]
    assert all((ends[0][k] == ends[1][k]).all() for k in ends[0])
