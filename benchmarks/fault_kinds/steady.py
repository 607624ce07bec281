"""Memory, descriptors and threads over many steps and predictions."""

from __future__ import annotations

import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fault_kinds.children import Child, Found, Sizes, ended
from fault_kinds.runs import to_end, train

WARM_UP = 0.25  # the share of a run before which it may still grow
SLOPE = 4.0  # MB that memory may grow in 1,000 steps after that; what the C library holds back differs by less
JUDGED_STEPS = 1000  # fewer steps after the warm-up say nothing: what is held differs from moment to moment
SAMPLES = 200


@dataclass(frozen=True)
class Sample:
    """What a process holds after so many steps: megabytes, descriptors, threads."""

    step: int
    memory: float
    descriptors: int
    threads: int


def steady(sizes: Sizes) -> Iterator[Found]:
    """A long run, with loader processes, checkpoints and evaluations, and many predictions, hold no more at the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        epochs = -(-sizes.steps // 3)
        more = ("data.workers=1", f"schedule.epochs={epochs}", "schedule.clip_norm=10", "optimizer.lr=1e-4")
        call = train(folder / "run", "--max-steps", sizes.steps, settings=more)
        yield _watched("training steps", call, folder / "training.out", folder / "run" / "metrics.jsonl", sizes)
        problem = to_end(folder / "tiny", "--max-steps", 1)
        if problem:
            yield "predictions", 1, [problem]
            return
        counter = folder / "predicted"
        call = _predict(folder / "tiny", sizes.steps, counter)
        yield _watched("predictions", call, folder / "predicting.out", counter, sizes)


def _predict(run: Path, steps: int, counter: Path) -> Callable[[], int]:
    """Predict so often, of images of several sizes; each adds a line to the counter."""

    def call() -> int:
        from PIL import Image

        from det_core import load_detector, predict
        from det_core.data.sample_files import sample_folder
        from det_core.engine.prepare_inference import for_inference

        detector = for_inference(load_detector(run))
        files = []
        for number, path in enumerate(sorted((sample_folder() / "images").glob("*.png"))):
            files.append(counter.with_name(f"image{number}.png"))
            with Image.open(path) as image:
                image.convert("RGB").resize((128 + 16 * (number % 5), 128 + 16 * (number % 3))).save(files[-1])
        with counter.open("w") as lines:
            for step in range(1, steps + 1):
                predict(detector, files[step % len(files)])
                print(f'{{"step": {step}}}', file=lines, flush=True)
        return 0

    return call


def _watched(what: str, call: Callable[[], int], output: Path, progress: Path, sizes: Sizes) -> Found:
    """Call in a process of its own; what it holds is read from outside as its file of progress grows."""
    child, samples = Child(call, output), list[Sample]()
    with ended(child):
        while child.process.is_alive():
            step = _step(progress)
            if step >= (len(samples) + 1) * sizes.steps / SAMPLES and (sample := _sample(child.pid, step)):
                samples.append(sample)
            time.sleep(0.005)
    if child.end():
        return what, 1, [f"status {child.process.exitcode}: {child.errors[-600:]}"]
    warm = [s for s in samples if s.step >= WARM_UP * sizes.steps]
    if len(warm) < 3:
        return what, 1, [f"only {len(warm)} samples after the warm-up"]
    third = max(1, len(warm) // 3)
    return f"{sizes.steps} {what} ({_shown(warm[:third], warm[-third:], warm)})", sizes.steps, _judge(warm, third)


def _judge(warm: list[Sample], third: int) -> list[str]:
    """What is not flat, if there are enough steps."""
    failures: list[str] = []
    if warm[-1].step - warm[0].step < JUDGED_STEPS:
        return failures
    if _slope(warm) > SLOPE:
        failures.append(f"memory grows by {_slope(warm):.1f} MB in 1,000, allowed: {SLOPE:g}")
    for name in ("descriptors", "threads"):
        before, after = (_median(part, name) for part in (warm[:third], warm[-third:]))
        if after > before:
            failures.append(f"{name} grow from {before} to {after}")
    return failures


def _shown(first: list[Sample], last: list[Sample], warm: list[Sample]) -> str:
    """What is held after the warm-up and at the end, as medians."""
    memory, descriptors, threads = (
        f"{_median(first, name):.0f} to {_median(last, name):.0f}" for name in ("memory", "descriptors", "threads")
    )
    slope = f"slope {_slope(warm):+.2f} MB in 1,000"
    return f"memory {memory} MB, {slope}; descriptors {descriptors}, threads {threads}"


def _median(samples: list[Sample], name: str) -> float:
    return statistics.median_high(getattr(sample, name) for sample in samples)


def _slope(samples: list[Sample]) -> float:
    """Megabytes of memory in 1,000 steps, by least squares."""
    return 1000 * statistics.linear_regression([s.step for s in samples], [s.memory for s in samples]).slope


def _step(progress: Path) -> int:
    """The step of the last whole line."""
    try:
        with progress.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1000))
            found = re.findall(rb'"step": (\d+)[^\n]*\n', file.read())
    except FileNotFoundError:
        return 0
    return int(found[-1]) if found else 0


def _sample(pid: int, step: int) -> Sample | None:
    """What the process holds; None if it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        kilobytes = re.search(r"VmRSS:\s+(\d+)", (folder / "status").read_text())
        descriptors, threads = (len(os.listdir(folder / part)) for part in ("fd", "task"))
    except OSError:
        return None
    return Sample(step, int(kilobytes.group(1)) / 1e3, descriptors, threads) if kilobytes else None
