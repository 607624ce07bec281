"""Two processes in one run folder."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fault_kinds.children import Child, Found, Sizes, ended, one_line
from fault_kinds.runs import Outcome, difference, leftovers, outcome, to_end, train


def two(sizes: Sizes) -> Iterator[Found]:
    """The second is refused in one line that names the first, whose run ends as an undisturbed one."""
    failures = []
    with tempfile.TemporaryDirectory() as name:
        whole, run = Path(name, "whole"), Path(name, "run")
        problem = to_end(whole)
        if problem:
            yield "two processes", 1, [f"the undisturbed run: {problem}"]
            return
        expected = outcome(whole)
        for number in range(sizes.count):
            rng = random.Random(sizes.seed + number)
            shutil.rmtree(run, ignore_errors=True)
            problem = _pair(run, rng, expected)
            failures += [f"seed {sizes.seed + number}: {problem}"] if problem else []
    yield "two processes in one run folder", sizes.count, failures


def _pair(run: Path, rng: random.Random, expected: Outcome) -> str:
    """Two at once, or one after a first step of the other; returns what is wrong, or an empty text."""
    more = ("--resume",) if rng.random() < 0.5 else ()
    at_once, delay = rng.random() < 0.5, rng.uniform(0, 0.2)
    first = Child(train(run, *more), run.with_name("first.out"))
    metrics = run / "metrics.jsonl"
    while not at_once and first.process.is_alive() and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.005)
    time.sleep(0.0 if at_once else delay)
    second = Child(train(run, *more), run.with_name("second.out"))
    with ended(first, second):
        statuses = first.end(), second.end()
    if sorted(statuses) != [0, 1]:
        return f"statuses {statuses}: {first.errors[-300:]} {second.errors[-300:]}"
    holder, refused = (first, second) if statuses[0] == 0 else (second, first)
    line = one_line(refused)
    if not re.fullmatch(rf"error: {re.escape(str(run))} is in use by process {holder.pid} on \S+; wait .*", line):
        return f"process {holder.pid} is not named: {line}"
    return difference(run, expected) or leftovers(run)
