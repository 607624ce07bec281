"""A disk that is full: a small file system in memory, which only the process that mounts it sees."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from fault_kinds.children import Child, Found, Sizes, command, one_line
from fault_kinds.runs import Outcome, difference, leftovers, outcome, to_end, train

SIZE = 96 << 20
BEFORE = 3  # steps of the run that is there when the disk fills
NEW_MOUNTS, NEW_USER = 0x20000, 0x10000000  # of Linux's sched.h
PAGE = 4096

# The function at whose call the disk fills, which call of it, and whether training calls it or predicting.
TRAINING = {
    "weights": ("det_core.engine.checkpoint:save_file", 1),
    "raw weights": ("det_core.engine.checkpoint:save_file", 2),
    "training state": ("torch:save", 1),
    "manifest": ("det_core.engine.checkpoint:write_manifest", 1),
    "folder of a checkpoint": ("det_core.engine.checkpoint:save_checkpoint", 2),
    "best.json": ("det_core.engine.history:mark_best", 1),
    "metrics line": ("det_core.reports.loggers:MetricsFile.write", 1),
    "metrics, rewound": ("det_core.reports.loggers:MetricsFile.rewind", 1),
    "recipe.yaml": ("det_core.reports.training_report:TrainingReport._announce", 1),
    "TensorBoard": ("det_core.reports.loggers:TensorBoard.__init__", 1),
    "curves": ("det_core.reports.run_pictures:draw_curves", 1),
    "pictures": ("det_core.reports.run_pictures:save_png", 1),
    "anywhere in training": ("", 0),
}
PREDICTING = {
    "run.json": ("det_core.engine.prediction_folder:write_text", 1),
    "results": ("det_core.engine.result_log:ResultLog.append", 1),
    "picture of a prediction": ("det_core.reports.prediction_pictures:save_png", 1),
    "anywhere in predicting": ("", 0),
}
WAYS = TRAINING | PREDICTING


def disk(sizes: Sizes) -> Iterator[Found]:
    """Each way in turn: one line with the path and what is kept, nothing left behind, and afterwards all goes on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child = Child(lambda: _all(folder, sizes), folder / "out")
        status = child.end(sizes.count * 60.0 + 60)
        if status:
            yield "full disks", 1, [f"status {status}: {child.errors[-600:]}"]
            return
        found = json.loads((folder / "found.json").read_text(encoding="utf8"))
        yield found["what"], found["tries"], found["failures"]


def _all(folder: Path, sizes: Sizes) -> int:
    """In a process of its own: mount, try, and write what was found."""
    disk = folder / "disk"
    disk.mkdir()
    problem = _mount(disk)
    what, tries, failures = f"full disks (not tried: {problem})", 0, list[str]()
    if not problem:
        what, tries, failures = _tries(folder, disk, sizes)
    (folder / "found.json").write_text(json.dumps({"what": what, "tries": tries, "failures": failures}))
    return 0


def _mount(disk: Path) -> str:
    """Mount a small file system for this process and its children; returns why not, if not."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS | (NEW_USER if user else 0)):
        return f"no namespace of its own: {os.strerror(ctypes.get_errno())}"
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    for arguments in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)]):
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
        if done.returncode:
            return done.stderr.strip()
    return ""


def _tries(folder: Path, disk: Path, sizes: Sizes) -> Found:
    failures, ends = [], Counter[str]()
    whole, undisturbed = folder / "whole", folder / "undisturbed"
    problem = to_end(whole, "--max-steps", BEFORE)
    _pad(whole / "metrics.jsonl")
    shutil.copytree(whole, undisturbed)
    problem = problem or to_end(undisturbed)
    images = _images()
    first = Child(_predict(undisturbed, folder / "predicted", images), folder / "first.out")
    if problem or first.end():
        return "full disks", 1, [f"the undisturbed run: {problem or first.errors}"]
    wanted, predicted = outcome(undisturbed), (folder / "predicted" / "predictions.jsonl").read_text(encoding="utf8")
    for number in range(sizes.count):
        seed = sizes.seed + number
        rng, way = random.Random(seed), list(WAYS)[number % len(WAYS)]
        if way in TRAINING:
            end = _training(disk, way, rng, whole, wanted)
        else:
            end = _predicting(disk, way, rng, undisturbed, images, predicted)
        ends["one line" if end == "one line" else "harmless" if end == "harmless" else "failed"] += 1
        failures += [] if end in ("one line", "harmless") else [f"seed {seed}, {way}: {end}"]
        for path in disk.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return f"full disks ({', '.join(f'{n} {end}' for end, n in sorted(ends.items()))})", sizes.count, failures


def _training(disk: Path, way: str, rng: random.Random, whole: Path, wanted: Outcome) -> str:
    """The disk fills while a run goes on, and is emptied before it is resumed; returns how it ended."""
    run = disk / "run"
    shutil.copytree(whole, run)
    child = Child(_filling(disk, way, rng, train(run, "--resume")), disk.with_name("try.out"))
    child.end()
    end = _judge(child, run)
    (disk / "filler").unlink(missing_ok=True)
    problem = to_end(run) or difference(run, wanted)
    return f"then resumed: {problem}" if problem else end


def _predicting(disk: Path, way: str, rng: random.Random, run: Path, images: list[Path], predicted: str) -> str:
    """The disk fills while predictions are written, and is emptied before the run goes on."""
    out = disk / "out"
    call = _predict(run, out, images)
    child = Child(_filling(disk, way, rng, call), disk.with_name("try.out"))
    child.end()
    end = _judge(child, out)
    (disk / "filler").unlink(missing_ok=True)
    again = Child(call, disk.with_name("try.out"))
    if again.end() or (out / "predictions.jsonl").read_text(encoding="utf8") != predicted:
        return f"then again: {again.errors[-600:] or 'other predictions'}"
    return end


def _judge(child: Child, folder: Path) -> str:
    """`one line`, `harmless` if it ended well, or what is wrong."""
    if left := leftovers(folder):
        return left
    if child.process.exitcode == 0:
        return "harmless"
    line = one_line(child)
    if "No space left on device" not in line or str(folder) not in line:
        return f"not the path and the reason: {line}"
    kept = ("the earlier file is kept", "no file is left", "the last checkpoint is", "there is no earlier checkpoint")
    kept += ("what was found before is kept", "no result is lost")
    return "one line" if any(word in line for word in kept) else f"not what is kept: {line}"


def _predict(run: Path, out: Path, images: list[Path]) -> Callable[[], int]:
    return command("predict", "--checkpoint", run, "--out", out, "--resume", *images)


def _images() -> list[Path]:
    from det_core.data.sample_files import sample_folder

    return sorted((sample_folder() / "images").glob("*.png"))[:2]


def _pad(metrics: Path) -> None:
    """Make a metrics file end just before a page does, so that the next line needs another one."""
    row = json.dumps({"step": 1, "padding": ""}) + "\n"
    size = metrics.stat().st_size + len(row)
    text = json.dumps({"step": 1, "padding": "x" * (-(size + 8) % PAGE)}) + "\n"
    metrics.write_text(text + metrics.read_text(encoding="utf8"), encoding="utf8")


def _filling(disk: Path, way: str, rng: random.Random, call: Callable[[], int]) -> Callable[[], int]:
    """This function, called with a disk that fills at the moment of the way."""
    where, number = WAYS[way]
    room = (
        rng.randrange(24 << 20 if way in TRAINING else 200 << 10) if not where else rng.choice([0, 0, PAGE, 5 * PAGE])
    )

    def filled() -> int:
        if where:
            _before(where, number, lambda: _fill(disk, room))
        else:
            _fill(disk, room)
        return call()

    return filled


def _before(where: str, number: int, act: Callable[[], None]) -> None:
    """Act before a call of a function, given as `module:name`, the number-th one."""
    module, _, path = where.partition(":")
    owner = importlib.import_module(module)
    *owners, name = path.split(".")
    for part in owners:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), 0

    def wrapped(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == number:
            act()
        return real(*arguments, **named)

    setattr(owner, name, wrapped)


def _fill(disk: Path, room: int) -> None:
    """Write a file that leaves so many bytes of a file system."""
    state = os.statvfs(disk)
    with open(disk / "filler", "wb") as file:
        file.write(bytes(max(0, state.f_bavail * state.f_frsize - room)))
