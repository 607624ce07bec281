"""Whole detectors on a CPU in fp32, bf16 and int8, here and in other runtimes: time, and what AP a precision costs.

    python benchmarks/precision.py [--models faster-rcnn mask-rcnn retinanet ssd300] [--size 800 1333] [--rounds 3]
                                   [--threads N] [--epochs 30] [--data ROOT [--data-epochs 4]] [--json FILE]

Times: ResNet-50-FPN with random weights, and SSD300 (300 x 300, whatever `--size` says), the same weights in one run:
the detector as `for_inference` makes it, in fp32 and bf16, and its exported file in ONNX Runtime and OpenVINO, in
float32, in int8 (calibrated on the image that is timed) and, as OpenVINO converts it, in bfloat16. From the padded
image to boxes and masks, of ours pasted in the image, of a file as it gives them. Least processor time of several
rounds, taken in turns; read the ratios, not the times. Random weights have about as many detections in every precision.

AP: Faster and Mask R-CNN and SSD, all with group norm, are trained on the bundled sample for `--epochs` (0: not at
all), then evaluated on its validation images in every precision, of int8 in both runtimes. The images are few, so that
a difference below a point says little. With `--data ROOT` a RetinaNet is trained and evaluated on other data as well.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from attrs import frozen
from measure import in_turns
from peers import MAKERS, make_inputs, make_pair
from rich.console import Console
from rich.table import Table

from det_core import Detector, Recipe, for_inference, load_detector, load_recipe
from det_core.contracts import DetectionDataset
from det_core.engine.evaluate import evaluate
from det_core.engine.evaluate_predictions import Predictions, evaluate_predictions
from det_core.engine.predict import inference_autocast
from det_core.engine.train import train
from det_core.export.export_detector import export_detector, transformed
from det_core.export.export_int8 import export_int8
from det_core.export.load_exported import ExportedDetector, load_exported, runner_inputs
from det_core.export.openvino_model import OpenVinoRunner
from det_core.structures import Batch
from det_core.torch_internals import computes_in_bfloat16

DEMOS = ("faster-rcnn/r18-fpn-demo", "mask-rcnn/r18-fpn-demo", "ssd/vgg16-demo")
ON_DATA = "retinanet/r18-fpn-demo"
CPU = torch.device("cpu")
OURS = ("fp32", "bf16")
FILES = ("ONNX Runtime fp32", "OpenVINO fp32", "OpenVINO bf16", "ONNX Runtime int8", "OpenVINO int8")


def speed(model: str, size: tuple[int, int], rounds: int, folder: Path) -> dict[str, float]:
    """Milliseconds of an image by precision and runtime."""
    size = (300, 300) if model == "ssd300" else size
    inputs = make_inputs(size, 1)
    detector = make_pair(model, inputs, candidates=2000).ours
    prepared = for_inference(detector)
    calls: dict[str, Callable[[], object]] = {name: Call(prepared, inputs.batch, name) for name in OURS}
    calls |= exported_calls(detector, inputs.batch, folder / model)
    return {name: time * 1e3 for name, time in zip(calls, in_turns(list(calls.values()), rounds), strict=True)}


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


def exported_calls(detector: Detector, batch: Batch, stem: Path) -> dict[str, Callable[[], object]]:
    """What runs the exported files on the batch's image, by runtime and precision."""
    image = pixels(detector, batch)
    plain, int8 = stem.with_suffix(".onnx"), stem.with_suffix(".int8.onnx")
    detector.test_transforms = ()
    export_detector(detector, plain, tolerances=None, images=[image])
    export_int8(detector, int8, [image], tolerances=None, compared=1)
    (loaded,) = transformed(detector, [image])
    runners = {
        "ONNX Runtime fp32": load_exported(plain).runner,
        "OpenVINO fp32": OpenVinoRunner(plain),
        "OpenVINO bf16": OpenVinoRunner(plain, precision="bf16"),
        "ONNX Runtime int8": load_exported(int8).runner,
        "OpenVINO int8": OpenVinoRunner(int8),
    }
    given = runner_inputs([loaded], runners["ONNX Runtime fp32"].header)
    return {name: lambda runner=runner: runner(given) for name, runner in runners.items()}  # type: ignore[misc]


def pixels(detector: Detector, batch: Batch) -> torch.Tensor:
    """The image (3, h, w) uint8 that becomes the batch's, up to rounding."""
    height, width = batch.infos[0].size
    preprocess = detector.preprocess
    image = batch.images[0, :, :height, :width] * preprocess.std[0] + preprocess.mean[0]
    image = image.flip(0) if preprocess.config.order == "bgr" else image
    return image.round().clamp(0, 255).to(torch.uint8)


def accuracies(name: str, epochs: int, folder: Path, data: str | None = None) -> list[dict[str, str | float]]:
    """Train a demo, on the bundled sample or the data, and evaluate it in every precision: a row for each metric."""
    steps = [f"schedule.epochs={epochs}", f"evaluation.every_epochs={epochs}"]
    drop = f"schedule.learning_rate.milestones=[{max(1, epochs - 1)}]"
    recipe = load_recipe(name, steps if data is None else [*steps, drop])
    recipe = recipe if data is None else recipe.with_data(data)
    train(recipe, work_dir=folder, device="cpu")
    detector = load_detector(folder)
    dataset, file = recipe.open_val(), folder / "int8.onnx"
    found = {p: evaluate(for_inference(detector), dataset, precision=p).metrics for p in OURS}
    data = recipe.open_train()
    export_int8(detector, file, [data.file(index) for index in range(len(data))], tolerances=None)
    for label, runtime in (("ONNX Runtime int8", "onnxruntime"), ("OpenVINO int8", "openvino")):
        exported = load_exported(file, runtime=runtime)  # type: ignore[arg-type]
        found[label] = metrics(exported, dataset, recipe)
    shown = [metric for metric in ("box_ap", "mask_ap") if metric in found["fp32"]]
    return [
        {"recipe": name, "metric": metric} | {label: 100 * values[metric] for label, values in found.items()}
        for metric in shown
    ]


def metrics(exported: ExportedDetector, dataset: DetectionDataset, recipe: Recipe) -> dict[str, float]:
    """Of an exported file on a data set."""
    ids = dataset.image_ids.tolist()
    found = {number: exported(dataset.file(index)) for index, number in enumerate(ids)}
    return evaluate_predictions(dataset, Predictions(found), recipe.evaluation.evaluators).metrics


def show(speeds: dict[str, dict[str, float]], rows: list[dict[str, str | float]], console: Console) -> None:
    """Both tables."""
    names = (*OURS, *FILES)
    table = Table("model", *names, title="ms of an image, and fp32 over it", title_justify="left")
    for model, found in speeds.items():
        table.add_row(model, *(f"{found[name]:.0f} ({found['fp32'] / found[name]:.2f})" for name in names))
    console.print(table)
    if rows:
        columns = [name for name in rows[0] if name not in ("recipe", "metric")]
        table = Table("recipe", "metric", *columns, title="percent, and difference to fp32", title_justify="left")
        for row in rows:
            values = [f"{row[name]:.2f} ({float(row[name]) - float(row['fp32']):+.2f})" for name in columns]
            table.add_row(str(row["recipe"]), str(row["metric"]), *values)
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=list(MAKERS), default=list(MAKERS))
    parser.add_argument("--size", nargs=2, type=int, default=(800, 1333), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=30, help="of the trained detectors; 0: none")
    parser.add_argument("--data", help=f"also train {ON_DATA} on this data set in COCO's format")
    parser.add_argument("--data-epochs", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not computes_in_bfloat16():
        raise SystemExit("this processor has no instructions for bfloat16 (AVX512-BF16 or AMX): both would be fp32")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        speeds = {model: speed(model, tuple(options.size), options.rounds, work) for model in options.models}
        demos = DEMOS if options.epochs else ()
        rows = [row for name in demos for row in accuracies(name, options.epochs, work / name.partition("/")[0])]
        if options.data is not None:
            rows += accuracies(ON_DATA, options.data_epochs, work / "data", options.data)
    show(speeds, rows, Console(width=200))
    if options.json:
        options.json.write_text(json.dumps({"speed": speeds, "accuracy": rows}, indent=1))


if __name__ == "__main__":
    main()
