"""`det-core test`: evaluate a checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from det_core.cli.choose import (
    Changes,
    augmentation,
    detection_options,
    tiling,
    tiling_options,
    with_changes,
    with_limits,
)
from det_core.cli.options import ALLOW_OUTSIDE, AMP, CHECKPOINT, DATA, DEVICE, ON_BAD_SAMPLE, OVERRIDES, TIMEOUT
from det_core.errors import DetError, counted
from det_core.safe_write import write_text
from det_core.specs import Split

if TYPE_CHECKING:
    from det_core.contracts import DetectionDataset
    from det_core.engine.evaluate import Evaluation
    from det_core.recipe import Recipe
    from det_core.reports.loggers import Terminal


@click.command(name="test")
@CHECKPOINT
@DATA
@OVERRIDES
@click.option(
    "--split", type=click.Choice(get_args(Split)), default="val", show_default=True, help="Split to evaluate on."
)
@click.option("--json", "json_file", help="Also write the metrics to this JSON file.")
@click.option(
    "--detections",
    help="Also write the detections: into a .json file in COCO's results format, or into a folder as a text file for "
    "each class in VOC's format.",
)
@click.option(
    "--predictions",
    help="Evaluate predictions in a folder or file of `det-core predict`, in COCO's results format, or in a folder of "
    "VOC's text files, in place of running the model.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Images at once.")
@DEVICE
@AMP
@ON_BAD_SAMPLE
@ALLOW_OUTSIDE
@TIMEOUT
@tiling_options
@detection_options
@with_changes
def command(
    checkpoint: str,
    changes: Changes,
    split: Split,
    json_file: str | None,
    detections: str | None,
    predictions: str | None,
    batch_size: int,
    device: str | None,
    timeout: int,
    tile: int | None,
    overlap: float,
    merge: Literal["nms", "union"],
    flip: bool,
    scales: tuple[str, ...],
    score_threshold: float | None,
    max_detections: int | None,
) -> None:
    """Evaluate a checkpoint on its validation data, or another split. Prints a table of metrics; --json also writes
    them to a file.

    With --predictions, the checkpoint only says which data and metrics; its weights are not loaded.
    """
    from det_core.engine.checkpoint import load_detector, read_header, weights_file
    from det_core.engine.detection_recorder import DetectionRecorder
    from det_core.engine.distributed import join, leave
    from det_core.engine.evaluate import evaluate
    from det_core.engine.result_files import write_results
    from det_core.reports.loggers import Terminal

    file = weights_file(checkpoint)
    header = read_header(file)
    recipe = with_limits(changes.made_to(header.recipe, file), score_threshold, max_detections)
    if predictions is not None:
        if detections is not None:
            raise DetError("--detections: the detections of --predictions are there already; give only one of both")
        _evaluate_file(Path(predictions), recipe, split, json_file)
        return
    world = join(device, timeout)
    try:
        terminal = Terminal(quiet=not world.main)
        dataset = recipe.open_val(split)
        recorder = None if detections is None else DetectionRecorder(dataset)
        detector = load_detector(file, world.device, recipe=recipe)
        terminal.say(f"{file} (step {header.step}) on {len(dataset)} images of {dataset.name}")
        terminal.start("evaluating", -(-len(dataset) // world.size))
        result = evaluate(
            detector,
            dataset,
            evaluators=recipe.evaluation.evaluators,
            transforms=recipe.data.test_transforms,
            workers=recipe.data.workers,
            batch_size=batch_size,
            precision=recipe.schedule.precision,
            augmentation=augmentation(recipe, scales, flip),
            tiling=tiling(tile, overlap, merge),
            world=world,
            recorder=recorder,
            progress=lambda done, total: terminal.advance(done),
        )
        terminal.stop()
        _tell(result, dataset, terminal, json_file if world.main else None)
        if recorder is not None and world.main:
            written = write_results(Path(detections or ""), recorder.records, dataset)
            terminal.say(f"{counted(len(recorder.records), 'detection')} in {_place(written)}")
    finally:
        leave(world)


def _place(written: Sequence[Path]) -> str:
    """The file, or the folder of several."""
    return str(written[0] if len(written) == 1 else written[0].parent)


def _evaluate_file(path: Path, recipe: Recipe, split: Split, json_file: str | None) -> None:
    """Evaluate predictions that are there already, on a split of the recipe's data."""
    from det_core.engine.evaluate_predictions import evaluate_predictions, read_predictions
    from det_core.reports.loggers import Terminal

    terminal = Terminal()
    dataset = recipe.open_val(split)
    predictions = read_predictions(path, dataset)
    models = f" of {', '.join(predictions.models)}" if predictions.models else ""
    terminal.say(f"{path}{models} on {len(dataset)} images of {dataset.name}")
    _tell(evaluate_predictions(dataset, predictions, recipe.evaluation.evaluators), dataset, terminal, json_file)


def _tell(result: Evaluation, dataset: DetectionDataset, terminal: Terminal, json_file: str | None) -> None:
    """Print the metrics and what was left out, and write the metrics to a file if one is given."""
    terminal.say("\n".join(result.tables))
    for note in dataset.notes:
        terminal.say(note)
    for bad in dataset.skipped:
        terminal.say(f"left out: {bad}")
    if json_file is not None:
        write_text(Path(json_file), json.dumps(_plain(result.metrics, result.per_class), indent=2) + "\n")


def _plain(metrics: dict[str, float], per_class: dict[str, dict[str, float]]) -> dict[str, object]:
    """Metrics for JSON: null replaces nan."""

    def numbers(values: dict[str, float]) -> dict[str, float | None]:
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    return {"metrics": numbers(metrics), "per_class": {name: numbers(values) for name, values in per_class.items()}}
