"""`det-core test`: evaluate a checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from det_core.cli.choose import augmentation, detection_options, recipe_of, with_limits
from det_core.cli.options import ALLOW_OUTSIDE, AMP, CHECKPOINT, DATA, DEVICE, ON_BAD_SAMPLE, OVERRIDES, TIMEOUT


@click.command(name="test")
@CHECKPOINT
@DATA
@OVERRIDES
@click.option("--json", "json_file", help="Also write the metrics to this JSON file.")
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Images at once.")
@DEVICE
@AMP
@ON_BAD_SAMPLE
@ALLOW_OUTSIDE
@TIMEOUT
@detection_options
def command(
    checkpoint: str,
    data: str | None,
    overrides: tuple[str, ...],
    json_file: str | None,
    batch_size: int,
    device: str | None,
    use_amp: bool,
    on_bad_sample: str | None,
    allow_outside: bool,
    timeout: int,
    flip: bool,
    scales: tuple[str, ...],
    score_threshold: float | None,
    max_detections: int | None,
) -> None:
    """Evaluate a checkpoint on its validation data. Prints a table of metrics; --json also writes them to a file."""
    from det_core.engine.checkpoint import load_detector, read_header, weights_file, write_text
    from det_core.engine.distributed import join, leave
    from det_core.engine.evaluate import evaluate
    from det_core.reports.loggers import Terminal

    file = weights_file(checkpoint)
    header = read_header(file)
    recipe = recipe_of(
        file,
        header.recipe,
        overrides=overrides,
        data=data,
        use_amp=use_amp,
        on_bad_sample=on_bad_sample,
        allow_outside=allow_outside,
    )
    recipe = with_limits(recipe, score_threshold, max_detections)
    world = join(device, timeout)
    try:
        terminal = Terminal(quiet=not world.main)
        dataset = recipe.open_val()
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
            world=world,
            progress=lambda done, total: terminal.advance(done),
        )
        terminal.stop()
        terminal.say("\n".join(result.tables))
        for bad in dataset.skipped:
            terminal.say(f"left out: {bad}")
        if json_file is not None and world.main:
            write_text(Path(json_file), json.dumps(_plain(result.metrics, result.per_class), indent=2) + "\n")
    finally:
        leave(world)


def _plain(metrics: dict[str, float], per_class: dict[str, dict[str, float]]) -> dict[str, object]:
    """Metrics for JSON: null replaces nan."""

    def numbers(values: dict[str, float]) -> dict[str, float | None]:
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    return {"metrics": numbers(metrics), "per_class": {name: numbers(values) for name, values in per_class.items()}}
