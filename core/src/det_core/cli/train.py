"""`det-core train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from det_core.cli.choose import amp, choose_recipe, with_bad_samples, with_outside
from det_core.cli.options import ALLOW_OUTSIDE, AMP, ON_BAD_SAMPLE, OVERRIDES, setting_options
from det_core.engine.train_options import TrainOptions
from det_core.errors import DetError
from det_core.load import load_recipe
from det_core.recipe import Recipe


@click.command(name="train")
@click.option("--plugin", help="Train a plugin's default recipe; without --data its demo, on the bundled sample.")
@click.option("--recipe", help="Train this recipe (`det-core recipes`).")
@click.option("--config", help="Train the recipe in this YAML file.")
@OVERRIDES
@AMP
@ON_BAD_SAMPLE
@ALLOW_OUTSIDE
@setting_options(TrainOptions, leave_out=("quiet",))
def command(
    plugin: str | None,
    recipe: str | None,
    config: str | None,
    overrides: tuple[str, ...],
    use_amp: bool,
    on_bad_sample: str | None,
    allow_outside: bool,
    **options: Any,
) -> None:
    """Train a detector: a recipe, a plugin's own, or yours.

    The run folder is runs/RECIPE unless --work-dir names one; --resume needs no recipe if it does. Under torchrun (one
    node or several) every process trains its share of each batch.
    """
    data, work_dir = options.pop("data"), options.pop("work_dir")
    if options["resume"] and not (plugin or recipe or config):
        chosen = _recipe_of(work_dir, data, with_bad_samples(overrides, on_bad_sample))
    else:
        chosen = choose_recipe(
            plugin=plugin, recipe=recipe, config=config, data=data, overrides=overrides, on_bad_sample=on_bad_sample
        )
    if allow_outside:
        chosen = with_outside(chosen)
    if use_amp:
        chosen = amp(chosen)
    from det_core.engine.train import train

    train(chosen, work_dir=work_dir or Path("runs") / chosen.name.replace("/", "-"), **options)


def _recipe_of(work_dir: str | None, data: str | None, overrides: Sequence[str]) -> Recipe:
    """The recipe that a run folder keeps."""
    if work_dir is None:
        raise DetError("--resume continues a run: give its --work-dir, or the recipe that it trains")
    path = Path(work_dir) / "recipe.yaml"
    if not path.is_file():
        raise DetError(f"{path}: no such file, so there is no run to resume; give the recipe to start it")
    return load_recipe(path, overrides, data=data)
