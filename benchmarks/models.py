"""Whole detectors beside torchvision's in one run: same weights, same input, inference and training.

    python benchmarks/models.py [--models faster-rcnn mask-rcnn retinanet ssd300] [--size 800 1333] [--images 1]
                                [--what inference training] [--modes eager compile] [--rounds 5] [--threads N]
                                [--device cpu|cuda] [--precision fp32 bf16] [--keep-memory]
                                [--alone det|torchvision|floor] [--profile] [--json FILE]

ResNet-50-FPN, float32, stem and first stage frozen, batch norms frozen whole, 1000 proposals at test and 2000 in
training; SSD300 (300 x 300, whatever `--size` says) trains all of VGG-16. About `--candidates` scores above the
threshold per image. Images come resized and normalised, so that only the detectors count, from the padded batch to
boxes (and masks) in the original image. Our detector is the one that `for_inference` makes, as `det-core test` and
`predict` run it. A training step is losses, gradients and SGD. Least time of several rounds, taken in turns.

On a GPU, fp32 is torch's default: convolutions in TF32, matrix products in float32. bf16 is autocast. With `--json` the
rows so far are written after every row; a model that fails is listed, the next ones run, and the exit status is 1.

`compile` compiles backbone and pyramid with torch.compile on both sides, as `schedule.compile` does: what follows them
is small tensors of sizes that change.

`floor` is the time of the convolutions and matrix products of our detector alone, called again with the same
arguments: nothing that computes the same layers the same way is faster. `same` counts detections of torchvision that
ours has, too (same class, IoU above .99 or corners within a tenth of a pixel, score within 1e-3). Peak memory is what a
call adds to what was there. Read the ratios, not the times: they are those of a shared machine.

Two detectors in one process share the allocator, and give back memory that the other must ask the system for again.
`--alone` times one of the two (or the floor) as it runs in a process of its own; take such runs in turns. With
`--keep-memory` the C library (glibc) gives no memory back, for all three alike: what is left is the arithmetic. The
floor holds nothing from call to call, so that it never asks the system for memory; detectors do.
"""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from attrs import asdict, evolve, frozen
from measure import Call, heavy_calls, in_turns, keep_memory, peak
from peers import MAKERS, Pair, make_inputs, make_pair
from rich.console import Console
from rich.table import Table
from torchvision.ops import box_iou


@frozen
class Row:
    """One line: milliseconds per image or step, megabytes."""

    model: str
    what: str
    mode: str
    precision: str
    ours_ms: float
    peer_ms: float
    floor_ms: float
    ours_mb: float
    peer_mb: float

    def cells(self) -> list[str]:
        """As the table shows it."""
        times = [f"{self.ours_ms:.0f}", f"{self.peer_ms:.0f}", f"{self.peer_ms / self.ours_ms:.2f}x"]
        floor = [f"{self.floor_ms:.0f}", f"{self.ours_ms / self.floor_ms:.2f}"]
        return [
            self.model,
            self.what,
            self.mode,
            self.precision,
            *times,
            *floor,
            f"{self.ours_mb:.0f}",
            f"{self.peer_mb:.0f}",
        ]


COLUMNS = (
    *("model", "what", "mode", "precision"),
    *("det ms", "torchvision ms", "ratio", "floor ms", "x floor", "det MB", "its MB"),
)


def agreement(pair: Pair) -> str:
    """How many of torchvision's detections ours has, too."""
    same = total = 0
    for ours, theirs in zip(pair.infer_fixed()(), pair.infer_theirs(), strict=True):
        total += len(theirs["boxes"])
        close = box_iou(theirs["boxes"], ours.boxes) > 0.99
        # Boxes that clipping left without area overlap nothing, not even themselves.
        close |= (theirs["boxes"][:, None] - ours.boxes).abs().amax(-1) < 0.1
        close &= (theirs["labels"] - pair.first_label)[:, None] == ours.labels
        close &= (theirs["scores"][:, None] - ours.scores).abs() < 1e-3
        same += int(close.any(1).sum())
    return f"{same} of {total} detections the same"


def rows(model: str, pair: Pair, options: argparse.Namespace) -> Iterator[Row]:
    """Each kind of work in each mode; the floor, of eager calls, is timed in the same turns."""
    floors = {"inference": heavy_calls(pair.infer_ours), "training": heavy_calls(pair.trainer_ours())}
    for mode in options.modes:  # eager ones first: what is compiled stays so
        if mode == "compile":
            pair.compile(options.backend)
        for what in options.what:
            scale = 1e3 / (options.images if what == "inference" else 1)
            calls: list[Call] = (
                [pair.infer_fixed(), pair.infer_theirs]
                if what == "inference"
                else [pair.trainer_ours(), pair.trainer_theirs()]
            )
            for call in calls * 2:
                call()
            memory = [peak(call, options.device) for call in calls]
            times = in_turns([*calls, floors[what].replay], options.rounds, options.device)
            yield Row(model, what, mode, pair.precision, *(scale * t for t in times), *memory)


def alone(pair: Pair, options: argparse.Namespace) -> Iterator[str]:
    """The time of one side, the other never called."""
    for what in options.what:
        ours = pair.infer_fixed() if what == "inference" else pair.trainer_ours()
        theirs = pair.infer_theirs if what == "inference" else pair.trainer_theirs()
        call = theirs if options.alone == "torchvision" else ours
        if options.alone == "floor":
            call = heavy_calls(pair.infer_ours if what == "inference" else ours).replay
        (least,) = in_turns([call], options.rounds, options.device)
        yield f"{options.alone}, {what}: {least * 1e3 / (options.images if what == 'inference' else 1):.0f} ms"


def profiled(call: Call) -> str:
    """Where the time of a call goes, operator by operator."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40)


def main() -> int:
    """Print the rows and the table; 1 if a model failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MAKERS), default=list(MAKERS))
    parser.add_argument("--what", nargs="+", choices=["inference", "training"], default=["inference", "training"])
    parser.add_argument("--modes", nargs="+", choices=["eager", "compile"], default=["eager"])
    parser.add_argument("--size", nargs=2, type=int, default=[800, 1333], metavar=("H", "W"))
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--candidates", type=int, default=1000, help="scores above the threshold, per image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32"])
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--keep-memory", action="store_true", help="no memory goes back to the system (glibc)")
    parser.add_argument("--alone", choices=["det", "torchvision", "floor"], help="time only this")
    parser.add_argument("--profile", action="store_true", help="also show where the time of an inference goes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    options = parser.parse_args()
    options.modes.sort(reverse=True, key=lambda mode: mode == "eager")
    torch.set_num_threads(options.threads)
    if options.keep_memory:
        keep_memory()
    console = Console(width=150)
    height, width = options.size
    title = f"{options.images} of {height}x{width} (SSD: 300x300), {options.threads} threads, torch {torch.__version__}"
    table = Table(*COLUMNS, title=title)
    found: list[Row] = []
    failures = 0
    for precision in options.precision:
        for model in options.models:
            try:
                for row in compared(model, precision, options, console):
                    found.append(row)
                    table.add_row(*row.cells())
                    console.print(*row.cells())
                    write(found, options.json)
            except Exception as error:  # whatever is raised is this model's result, the next ones run
                failures += 1
                traceback.print_exc()
                console.print(f"{model}, {precision}: FAILED: {type(error).__name__}: {error}", markup=False)
    if found:
        console.print(table)
    write(found, options.json)
    return int(failures > 0)


def compared(model: str, precision: str, options: argparse.Namespace, console: Console) -> Iterator[Row]:
    """The rows of a model in one precision, or with `--alone` what it prints."""
    torch._dynamo.reset()
    size = (300, 300) if model == "ssd300" else tuple(options.size)
    inputs = make_inputs(size, options.images, 1 if model == "ssd300" else 32)
    pair = evolve(make_pair(model, inputs, options.candidates).to(options.device), precision=precision)
    console.print(f"{model}, {precision}: {agreement(pair)}")
    if options.profile:
        print(profiled(pair.infer_fixed()))  # too wide for the console
    if options.alone:
        for line in alone(pair, options):
            console.print(f"{model}, {precision}: {line}")
    else:
        yield from rows(model, pair, options)


def write(found: list[Row], path: Path | None) -> None:
    """The rows so far."""
    if path is not None:
        path.write_text(
            json.dumps([asdict(row) | {"ratio": row.peer_ms / row.ours_ms} for row in found], indent=2) + "\n",
            encoding="utf8",
        )


if __name__ == "__main__":
    raise SystemExit(main())
