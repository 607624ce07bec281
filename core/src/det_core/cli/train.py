"""`det-core train`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import click

from det_core.cli.choose import amp, choose_recipe, with_bad_samples, with_outside
from det_core.cli.options import ALLOW_OUTSIDE, AMP, ON_BAD_SAMPLE, OVERRIDES, setting_options
from det_core.engine.train_options import TrainOptions
from det_core.errors import ConfigError, DetError, no_such
from det_core.load import load_recipe
from det_core.recipe import Recipe
from det_core.safe_write import write_text
from det_core.specs import Source

INIT = "init.safetensors"  # in a run folder: what --init was converted into


@click.command(name="train")
@click.option("--plugin", help="Train a plugin's default recipe; without --data its demo, on the bundled sample.")
@click.option("--recipe", help="Train this recipe (`det-core recipes`).")
@click.option("--config", help="Train the recipe in this YAML file.")
@OVERRIDES
@AMP
@ON_BAD_SAMPLE
@ALLOW_OUTSIDE
@click.option(
    "--from",
    "source",
    type=click.Choice(get_args(Source)),
    help="The project that saved the file of --init, which is then converted. Without a recipe, that of the file.",
)
@setting_options(TrainOptions, leave_out=("quiet",))
def command(
    plugin: str | None,
    recipe: str | None,
    config: str | None,
    overrides: tuple[str, ...],
    use_amp: bool,
    on_bad_sample: str | None,
    allow_outside: bool,
    source: Source | None,
    **options: Any,
) -> None:
    """Train a detector: a recipe, a plugin's own, or yours.

    The run folder is runs/RECIPE unless --work-dir names one; --resume needs no recipe if it does. Under torchrun (one
    node or several) every process trains its share of each batch.
    """
    data, work_dir = options.pop("data"), options.pop("work_dir")
    if source is not None:
        work_dir = work_dir or str(Path("runs") / Path(options["init"] or "").stem)
        own = _convert(options["init"], source, plugin, recipe or config, overrides, Path(work_dir))
        options["init"] = Path(work_dir) / INIT
        config = config if recipe or config else str(own)
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
    try:
        return load_recipe(path, overrides, data=data)
    except ConfigError as error:
        raise DetError(f"{error}{_parts_of(path.with_name('run.json'))}") from None


def _parts_of(file: Path) -> str:
    """What a run's record says of parts that are not registered now."""
    from det_core.engine.checkpoint import not_registered

    try:
        record = json.loads(file.read_text(encoding="utf8"))
        parts = {str(name): str(origin) for name, origin in record["registered"].items()}
        paths = {Path(path).name: str(path) for path in record["plugin_files"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return not_registered({name: paths.get(origin, origin) for name, origin in parts.items()})


def _convert(
    init: str | None, source: Source, plugin: str | None, recipe: str | None, overrides: Sequence[str], folder: Path
) -> Path:
    """Convert the file of --init into a run folder; returns the file with the recipe that its weights belong to."""
    if init is None or not Path(init).is_file():
        found = "no --init" if init is None else no_such(init, "no such file")
        raise DetError(f"--from {source}: {found}; it is for the checkpoint of another project, --init FILE")
    if plugin is not None:
        raise DetError("--from: give --recipe or --config instead of --plugin, or none for the recipe of the file")
    from det_core.cli.import_weights import import_detector
    from det_core.weights.import_plan import plan_import
    from det_core.weights.read_files import read_source
    from det_core.weights.translate_names import is_detector

    read = read_source(Path(init))
    if not is_detector(read.state):
        raise DetError(
            f"{init}: an ImageNet model, not a detector; convert it with `det-core import-weights`, and give it with "
            "--set detector.backbone.pretrained=FILE"
        )
    plan = plan_import(read, source, recipe, overrides)
    import_detector(read, plan, folder / INIT)
    own = folder / "init.yaml"
    write_text(own, plan.recipe.to_yaml())
    return own
