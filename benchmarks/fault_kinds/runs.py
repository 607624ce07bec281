"""A tiny run in two epochs, each evaluated, and what it leaves, to compare bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fault_kinds.children import Child, command

RECIPE = "rpn/r18-fpn-demo"
STEPS = 6
TINY = (
    "data.workers=0",
    "data.images_per_rank=6",
    "data.train_transforms=[{type: resize, scales: [[64, 64]]}, {type: flip}]",
    "data.test_transforms=[{type: resize, scales: [[64, 64]]}]",
    "detector.backbone.stages=[1, 2]",
    "detector.neck.channels=16",
    "detector.dense_head.channels=16",
    "schedule.ema_decay=0.9",
    "schedule.epochs=2",
    "schedule.learning_rate.milestones=[]",
)
Outcome = dict[str, object]


def train(run: Path, *more: object, settings: tuple[str, ...] = ()) -> Callable[[], int]:
    """`det-core train` in this folder, which saves and logs after every step."""
    sets = [part for setting in (*TINY, *settings) for part in ("--set", setting)]
    common = ("--recipe", RECIPE, "--work-dir", run, "--save-every", 1, "--log-every", 1)
    return command("train", *common, *sets, *more)


def to_end(run: Path, *more: object) -> str:
    """Train or resume to the end; returns what is wrong, or an empty text."""
    child = Child(train(run, "--resume", *more), run.with_name(f"{run.name}.out"))
    status = child.end()
    return "" if status == 0 else f"status {status}: {child.errors[-600:]}"


def outcome(run: Path, step: int = STEPS) -> Outcome:
    """The last checkpoint's tensors and numbers, the metrics without times, and the best checkpoint, by name."""
    import torch
    from safetensors.torch import load_file

    folder = run / "checkpoints" / f"step-{step:07d}"
    found: Outcome = {}
    for name in ("model", "raw"):
        found |= {f"{name} {key}": _bits(value) for key, value in load_file(folder / f"{name}.safetensors").items()}
    training = torch.load(folder / "training.pt", weights_only=True)
    for state in training["random"]:  # of generators that nothing seeds or draws from
        del state["python"], state["numpy"]
    found |= dict(_flat(training, "training"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf8").splitlines()]
    found["metrics"] = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
    best = run / "checkpoints" / "best.json"
    found["best"] = best.read_text(encoding="utf8") if best.exists() else ""
    return found


def _bits(tensor: Any) -> bytes:
    return bytes(tensor.contiguous().numpy().tobytes())


def _flat(value: Any, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, (dict, list, tuple)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(inner, f"{path}.{key}")
    else:
        yield path, _bits(value) if hasattr(value, "numpy") else value


def difference(run: Path, expected: Outcome, step: int = STEPS) -> str:
    """The first names in which a run differs from the expected outcome, or an empty text."""
    try:
        found = outcome(run, step)
    except Exception as error:
        return f"no outcome: {type(error).__name__}: {error}"
    names = [name for name in expected | found if found.get(name, run) != expected.get(name, run)]
    return f"{len(names)} values differ: {', '.join(names[:5])}" if names else ""


def leftovers(folder: Path) -> str:
    """Temporary files and folders of saves that did not end, or an empty text."""
    left = [str(path.relative_to(folder)) for path in folder.rglob(".writing-*")]
    return f"left behind: {', '.join(left)}" if left else ""
