"""Whole detectors on a CPU in fp32 and bf16: time of the same weights in one run, and what AP a precision costs.

    python benchmarks/precision.py [--models faster-rcnn mask-rcnn retinanet ssd300] [--size 800 1333] [--rounds 3]
                                   [--threads N] [--epochs 30] [--json FILE]

Times: ResNet-50-FPN with random weights, and SSD300 (300 x 300, whatever `--size` says), as `for_inference` makes them,
from the padded batch to boxes and masks in the original image. Least processor time of several rounds, taken in turns;
read the ratios, not the times. A detector with random weights has about as many detections in either precision.

AP: Faster and Mask R-CNN are trained on the bundled sample for `--epochs` (0: not at all), then evaluated on its
validation images in either precision. They are few, so that a difference below a point says little.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from attrs import asdict, frozen
from measure import in_turns
from peers import MAKERS, make_inputs, make_pair
from rich.console import Console
from rich.table import Table

from det_core import Detector, for_inference, load_detector, load_recipe
from det_core.engine.evaluate import evaluate
from det_core.engine.predict import inference_autocast
from det_core.engine.train import train
from det_core.structures import Batch
from det_core.torch_internals import computes_in_bfloat16

PRECISIONS = ("fp32", "bf16")
DEMOS = ("faster-rcnn/r18-fpn-demo", "mask-rcnn/r18-fpn-demo")
CPU = torch.device("cpu")


@frozen
class Speed:
    """Milliseconds per image in each precision."""

    model: str
    fp32_ms: float
    bf16_ms: float


@frozen
class Accuracy:
    """A metric, in percent, in each precision."""

    recipe: str
    metric: str
    fp32: float
    bf16: float


def speed(model: str, size: tuple[int, int], rounds: int) -> Speed:
    """Time one model in both precisions."""
    inputs = make_inputs((300, 300) if model == "ssd300" else size, 1)
    detector = for_inference(make_pair(model, inputs, candidates=2000).ours)
    fp32, bf16 = in_turns([Call(detector, inputs.batch, precision) for precision in PRECISIONS], rounds)
    return Speed(model, fp32 * 1e3, bf16 * 1e3)


@frozen(eq=False)
class Call:
    """Detections of a batch of one image in a precision."""

    detector: Detector
    batch: Batch
    precision: str

    @torch.inference_mode()
    def __call__(self) -> object:
        with inference_autocast(CPU, self.precision):
            return self.detector.predict(self.batch)[0]


def accuracies(recipe: str, epochs: int) -> list[Accuracy]:
    """Train a demo and evaluate it in both precisions."""
    with tempfile.TemporaryDirectory() as folder:
        steps = [f"schedule.epochs={epochs}", f"evaluation.every_epochs={epochs}"]
        made = load_recipe(recipe, steps)
        train(made, work_dir=folder, device="cpu")
        detector = for_inference(load_detector(Path(folder)))
        dataset = made.open_val()
        found = {p: evaluate(detector, dataset, precision=p).metrics for p in PRECISIONS}
    names = [name for name in ("box_ap", "mask_ap") if name in found["fp32"]]
    return [Accuracy(recipe, name, *(100 * found[p][name] for p in PRECISIONS)) for name in names]


def show(speeds: list[Speed], found: list[Accuracy], console: Console) -> None:
    """Both tables."""
    table = Table("model", "fp32 ms", "bf16 ms", "fp32 / bf16", title="time of an image", title_justify="left")
    for row in speeds:
        table.add_row(row.model, f"{row.fp32_ms:.0f}", f"{row.bf16_ms:.0f}", f"{row.fp32_ms / row.bf16_ms:.2f}")
    console.print(table)
    table = Table("recipe", "metric", "fp32", "bf16", "difference", title="percent", title_justify="left")
    for accuracy in found:
        numbers = accuracy.fp32, accuracy.bf16, accuracy.bf16 - accuracy.fp32
        table.add_row(accuracy.recipe, accuracy.metric, *(f"{number:.2f}" for number in numbers))
    if found:
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MAKERS), default=list(MAKERS))
    parser.add_argument("--size", nargs=2, type=int, default=(800, 1333), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=30, help="of the trained detectors; 0: none")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not computes_in_bfloat16():
        raise SystemExit("this processor has no instructions for bfloat16 (AVX512-BF16 or AMX): both would be fp32")
    speeds = [speed(model, tuple(options.size), options.rounds) for model in options.models]
    found = [row for recipe in DEMOS if options.epochs for row in accuracies(recipe, options.epochs)]
    show(speeds, found, Console())
    if options.json:
        rows = {"speed": [asdict(row) for row in speeds], "accuracy": [asdict(row) for row in found]}
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
