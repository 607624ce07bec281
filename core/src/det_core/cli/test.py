"""`det-core test`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from det_core.cli.choose import amp, augmentation, detection_options, with_bad_samples, with_limits
from det_core.load import recipe_from_plain


@click.command(name="test")
@click.option("--checkpoint", required=True, help="A run folder (its best checkpoint), a checkpoint, or .safetensors.")
@click.option("--data", help="Root folder of the data set; by default the one it was trained on.")
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change one setting; may be repeated.")
@click.option("--json", "json_file", help="Also write the metrics to this JSON file.")
@click.option("--device", help="cpu, cuda, cuda:N or mps; by default the GPU if there is one.")
@click.option("--amp", "use_amp", is_flag=True, help="Mixed precision.")
@click.option("--on-bad-sample", type=click.Choice(["error", "skip"]), help="Stop at bad data, or leave it out.")
@detection_options
def command(
    checkpoint: str,
    data: str | None,
    overrides: tuple[str, ...],
    json_file: str | None,
    device: str | None,
    use_amp: bool,
    on_bad_sample: str | None,
    flip: bool,
    scales: tuple[str, ...],
    score_threshold: float | None,
    max_detections: int | None,
) -> None:
    """Evaluate a checkpoint on its validation data: the metrics as a table, and as JSON."""
    from det_core.config.overrides import apply_overrides
    from det_core.engine.checkpoint import load_detector, read_header, weights_file, write_text
    from det_core.engine.distributed import join, leave
    from det_core.engine.evaluate import evaluate
    from det_core.reports.loggers import Terminal

    file = weights_file(checkpoint)
    header = read_header(file)
    changed = apply_overrides(header.recipe.to_plain(), with_bad_samples(overrides, on_bad_sample))
    recipe = recipe_from_plain(changed, str(file))
    recipe = recipe if data is None else recipe.with_data(data)
    recipe = with_limits(amp(recipe) if use_amp else recipe, score_threshold, max_detections)
    world = join(device)
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
        leave()


def _plain(metrics: dict[str, float], per_class: dict[str, dict[str, float]]) -> dict[str, object]:
    """Metrics as JSON holds them: null where there was nothing to measure."""

    def numbers(values: dict[str, float]) -> dict[str, float | None]:
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    return {"metrics": numbers(metrics), "per_class": {name: numbers(values) for name, values in per_class.items()}}
