"""SIGKILL at a random moment, then resume."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fault_kinds.children import Child, Found, Sizes, ended
from fault_kinds.runs import STEPS, difference, leftovers, outcome, to_end, train

IN_A_SAVE = 0.5  # the share of kills that wait for a save to begin
SAVE_SECONDS = 0.05  # about what a save takes


def kill(sizes: Sizes) -> Iterator[Found]:
    """After a kill and a resume, all is as in a run that was not killed. Half of the kills are at a save."""
    failures, places = [], Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        whole, run = Path(name, "whole"), Path(name, "run")
        began = time.monotonic()
        problem = to_end(whole)
        took = time.monotonic() - began
        if problem:
            yield "kills", 1, [f"the undisturbed run: {problem}"]
            return
        expected = outcome(whole)
        for number in range(sizes.count):
            rng = random.Random(sizes.seed + number)
            where = _kill(run, rng, took)
            while not where:  # it had ended before
                where = _kill(run, rng, took)
            places[where] += 1
            problem = to_end(run) or difference(run, expected) or leftovers(run)
            if problem:
                failures.append(f"seed {sizes.seed + number}, killed {where}: {problem}")
    parts = ", ".join(f"{count} {where}" for where, count in sorted(places.items()))
    yield f"kills with resume ({parts})", sizes.count, failures


def _kill(run: Path, rng: random.Random, took: float) -> str:
    """Start a run and kill it; returns where it was, or an empty text if it had ended."""
    shutil.rmtree(run, ignore_errors=True)
    child = Child(train(run), run.with_name("killed.out"))
    with ended(child):
        if rng.random() < IN_A_SAVE:
            temporary = run / "checkpoints" / f".writing-step-{rng.randint(1, STEPS):07d}"
            while not temporary.exists() and child.process.is_alive():
                time.sleep(0.0005)
            time.sleep(rng.uniform(0, SAVE_SECONDS))
        else:
            child.process.join(rng.uniform(0, took))
    if child.process.exitcode == 0:
        return ""
    return "in a save" if leftovers(run) else "elsewhere"
