"""Try long what tests try shortly: damaged inputs of every reader, damaged files of run folders, kills with resume.

    python benchmarks/faults.py                                          # all, some hours
    python benchmarks/faults.py --only damage --count 200
    python benchmarks/faults.py --only fuzz --seconds 600 --seed 7

Prints a line for each kind: tries, failures, and the first failures. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FUZZ = ROOT / "tests" / "fuzz_readers.py"
READERS = ("coco", "voc", "recipe", "header", "proposals", "image", "command_line")
KINDS = ("fuzz", "damage", "kill")
SHOWN = 3
RECIPE = "rpn/r18-fpn-demo"
TINY = (
    "data.workers=0",
    "data.train_transforms=[{type: resize, scales: [[64, 64]]}, {type: flip}]",
    "data.test_transforms=[{type: resize, scales: [[64, 64]]}]",
    "detector.backbone.stages=[1, 2, 3]",
    "detector.neck.channels=16",
    "detector.dense_head.channels=16",
    "schedule.ema_decay=0.9",
)
TRAIN = """
import sys
from det_core import load_recipe, train
folder, steps, *settings = sys.argv[1:]
train(load_recipe({recipe!r}, settings), work_dir=folder, max_steps=int(steps), save_every=1, resume=True, quiet=True)
"""


def fuzz(seconds: float, seed: int, count: int) -> Iterator[tuple[str, int, list[str]]]:
    """Each reader for so long, in a process of its own."""
    for reader in READERS:
        run = [sys.executable, str(FUZZ), reader, str(seconds), str(seed)]
        done = subprocess.run(run, capture_output=True, text=True)
        if done.returncode:
            yield f"fuzz {reader}", 1, [f"the process ended with {done.returncode}: {done.stderr[-300:]}"]
        else:
            found = json.loads(done.stdout.splitlines()[-1])
            yield f"fuzz {reader}", found["tries"], [f"seed {f['seed']}: {f['error']}" for f in found["failures"]]


def damage(seconds: float, seed: int, count: int) -> Iterator[tuple[str, int, list[str]]]:
    """Files of a run folder damaged one at a time: resuming refuses them, or goes on as if they were whole."""
    from det_core import DetError, load_recipe, train

    recipe = load_recipe(RECIPE, list(TINY))
    failures, refused = [], Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        train(recipe, work_dir=whole, max_steps=2, save_every=1, quiet=True)
        expected = _resumed(whole, Path(name) / "expected", recipe)
        files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file() and p.stat().st_size)
        for number in range(count):
            rng = random.Random(seed + number)
            file = rng.choice(files)
            run = Path(name) / "run"
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(whole, run)
            how = _spoil(run / file, rng)
            try:
                if _resumed(run, Path(name) / "resumed", recipe) != expected:
                    failures.append(f"seed {seed + number}: {file} {how}: resumed to other weights")
            except DetError:
                refused[str(file.name)] += 1
            except Exception as error:
                failures.append(f"seed {seed + number}: {file} {how}: {type(error).__name__}: {error}")
    yield f"damaged files ({sum(refused.values())} refused, the others harmless)", count, failures


def _spoil(path: Path, rng: random.Random) -> str:
    """Damage a file; returns how."""
    content = bytearray(path.read_bytes())
    how = rng.choice(["flipped", "flipped", "cut", "emptied", "removed"])
    if how == "removed":
        path.unlink()
        return how
    if how == "flipped":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    else:
        del content[rng.randrange(len(content)) if how == "cut" else 0 :]
    path.write_bytes(content)
    return how


def _resumed(run: Path, copy: Path, recipe: Any) -> dict[str, bytes]:
    """The weights after one more step."""
    from det_core import train

    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    train(recipe, work_dir=copy, max_steps=3, save_every=1, resume=True, quiet=True)
    return _weights(copy / "checkpoints" / "step-0000003")


def _weights(checkpoint: Path) -> dict[str, bytes]:
    """The bits of all weights by name; their order in a file differs from run to run."""
    from safetensors.torch import load_file

    weights = load_file(checkpoint / "model.safetensors")
    return {name: value.numpy().tobytes() for name, value in weights.items()}


def kill(seconds: float, seed: int, count: int) -> Iterator[tuple[str, int, list[str]]]:
    """SIGKILL at a random moment, then resume: the weights are those of a run that was not killed."""
    failures = []
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        expected = _run_to_end(Path(name) / "whole")
        took = time.monotonic() - began
        for number in range(count):
            rng = random.Random(seed + number)
            run = Path(name) / f"run{number}"
            process = subprocess.Popen(_command(run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=rng.uniform(0.3, 1) * took)
            process.send_signal(signal.SIGKILL)
            process.wait()
            if _run_to_end(run) != expected:
                failures.append(f"seed {seed + number}: other weights after a kill")
            shutil.rmtree(run)
    yield "kills with resume", count, failures


def _command(run: Path) -> list[str]:
    return [sys.executable, "-c", TRAIN.format(recipe=RECIPE), str(run), "6", *TINY]


def _run_to_end(run: Path) -> dict[str, bytes]:
    done = subprocess.run(_command(run), capture_output=True, text=True)
    checkpoint = run / "checkpoints" / "step-0000006"
    return _weights(checkpoint) if checkpoint.is_dir() else {done.stderr: b""}


def main() -> int:
    """Run the chosen kinds, a line each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seconds", type=float, default=600, help="for each reader")
    parser.add_argument("--count", type=int, default=200, help="damaged files, kills")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    failed = 0
    for kind in options.only:
        for what, tries, failures in {"fuzz": fuzz, "damage": damage, "kill": kill}[kind](
            options.seconds, options.seed, options.count
        ):
            print(f"{what}: {tries} tries, {len(failures)} failures", flush=True)
            for failure in failures[:SHOWN]:
                print(f"  {failure}", flush=True)
            failed += len(failures)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
