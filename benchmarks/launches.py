"""Operator calls and host synchronisations of a training step and of an inference, counted on the CPU.

    python benchmarks/launches.py [--only mask-rcnn htc] [--images 1] [--where] [--json FILE]

A call is an operator that torch dispatches, views left out: on a GPU each is at least one launch. A synchronisation is
one whose result the host must know before it goes on: `nonzero`, boolean indexing, `item`, `unique`, and copies to the
host. Training has 2 images with 10 objects each, inference `--images` with 100 detections each. `--where` lists the
functions that make most of them. torchvision's models are beside those that it has. The optimiser counts as one call in
both: on GPUs it is fused (`optim/optimizers.py`), on the CPU it is not, for the reason given there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, field, frozen
from peers import RECIPES, Inputs, make_inputs, make_pair
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from det_core import Detector, for_inference, load_recipe
from det_core.engine.parameter_groups import build_optimizer
from det_core.model.memory_layout import to_channels_last
from det_core.optim.optimizer_config import SGDConfig

OTHERS = {
    "rpn": "rpn/r50-fpn-1x",
    "cascade-mask-rcnn": "cascade-mask-rcnn/r50-fpn-1x",
    "htc": "htc/r50-fpn-1x",
    "ga-retinanet": "ga-retinanet/r50-caffe-fpn-1x",
}
SIZE = (320, 480)
aten = torch.ops.aten
WAITS = {
    *(aten.nonzero.default, aten._local_scalar_dense.default, aten.masked_select.default, aten._unique2.default),
    *(aten.unique_dim.default, aten.unique_consecutive.default, aten.is_nonzero.default, aten.equal.default),
}
TO_HOST = {Tensor.tolist, Tensor.numpy, Tensor.cpu}
OPTIMISER = "optimiser"
ROOT = Path(__file__).resolve().parents[1]


@frozen(eq=False)
class Count:
    """Calls and synchronisations, and by the function of this project in which they were made."""

    calls: Counter[str] = field(factory=Counter)
    waits: Counter[str] = field(factory=Counter)


def place() -> str:
    """The innermost function of this project, or of torchvision's models, that is being run."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/torch/optim/" in name:
            return OPTIMISER
        if ("/src/det_" in name and "/det_ops/" not in name) or "/torchvision/models/" in name:
            return f"{Path(name).stem}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "backward"


class Calls(TorchDispatchMode):
    """Counts operators that are not views, and those among them that wait."""

    def __init__(self, count: Count) -> None:
        super().__init__()
        self.count = count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        where = place()
        if not func.is_view and func.namespace != "prim":
            self.count.calls[where] = 1 if where == OPTIMISER else self.count.calls[where] + 1
        masked = func is aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        if func in WAITS or masked:
            self.count.waits[where] += 1
        return func(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Counts copies to the host that no operator shows on a CPU."""

    def __init__(self, count: Count) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = (*args, *(kwargs or {}).values())
        if func in TO_HOST or (func is Tensor.to and any(str(g) == "cpu" for g in given[1:])):
            self.count.waits[place()] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counting() -> Iterator[Count]:
    """Counts what is run inside."""
    count = Count()
    with Copies(count), Calls(count):
        yield count


def counted(call: Callable[[], object]) -> Count:
    """Of the second call: the first fills caches."""
    call()
    with counting() as count:
        call()
    return count


def own(recipe: str, inputs: Inputs) -> Detector:
    """A detector with random weights, of which every pair of region and class is a detection."""
    config = load_recipe(recipe).detector
    config = evolve(config, backbone=evolve(config.backbone, pretrained=None))  # type: ignore[call-arg]
    torch.manual_seed(0)
    detector = config.build(num_classes=len_classes(recipe))
    to_channels_last(detector)
    return detector


def len_classes(recipe: str) -> int:
    return 1 if recipe.startswith("rpn/") else 80


def step_of(detector: Detector, inputs: Inputs) -> Callable[[], None]:
    """A training step."""
    optimizer = build_optimizer(SGDConfig(lr=1e-9), detector)
    semantic = torch.zeros(SIZE, dtype=torch.int64)
    targets = [evolve(t, semantic=semantic, labels=t.labels % len(detector.classes)) for t in inputs.targets]

    def step() -> None:
        detector.train()
        terms = detector(inputs.batch, targets)
        sum(term.value() for term in terms.values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def rows(only: list[str], images: int) -> Iterator[tuple[str, Count, Count, Count | None, Count | None]]:
    """Name; training and inference of ours, then of torchvision's."""
    some, two = make_inputs(SIZE, images), make_inputs(SIZE, 2)
    for name in RECIPES:
        if name in only:
            inputs = [make_inputs((300, 300), n, 1) for n in (images, 2)] if name == "ssd300" else [some, two]
            infer, train = make_pair(name, inputs[0], 300), make_pair(name, inputs[1], 300)
            yield (
                name,
                counted(train.trainer_ours()),
                counted(infer.infer_fixed()),
                counted(train.trainer_theirs()),
                counted(infer.infer_theirs),
            )
    for name, recipe in OTHERS.items():
        if name in only:
            training = counted(step_of(own(recipe, two), two))
            fixed = for_inference(lower_threshold(own(recipe, some)))
            yield name, training, counted(partial(fixed.predict, some.batch)), None, None


def lower_threshold(detector: Detector) -> Detector:
    """The detector with every score above its threshold, so that it gives the most detections."""
    for part in (detector.dense_head, detector.roi_head):
        config = getattr(part, "config", None)
        if config is not None and hasattr(config, "score_threshold"):
            part.config = evolve(config, score_threshold=0.0)
    return detector


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [*RECIPES, *OTHERS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--images", type=int, default=1, help="of an inference")
    parser.add_argument("--where", action="store_true", help="list the functions that make most calls")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    table = Table(title="operator calls / host synchronisations", title_justify="left")
    for column in ("", "training", "torchvision", "inference", "torchvision"):
        table.add_column(column, justify="left" if not column else "right")
    found = {}
    for name, training, inference, their_training, their_inference in rows(options.only, options.images):
        counts = (training, their_training, inference, their_inference)
        texts = ["-" if c is None else f"{c.calls.total():,} / {c.waits.total()}" for c in counts]
        table.add_row(name, *texts)
        found[name] = [None if c is None else [c.calls.total(), c.waits.total()] for c in counts]
        if options.where:
            for what, count in (("training", training), ("inference", inference)):
                print(f"{name}, {what}: calls", count.calls.most_common(25), "\n  waits", count.waits.most_common(12))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
