"""`det-core train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from det_core.cli.choose import amp, choose_recipe, with_bad_samples
from det_core.errors import DetError
from det_core.load import load_recipe
from det_core.recipe import Recipe


@click.command(name="train")
@click.option("--plugin", help="Train a plugin's default recipe; without --data its demo, on the bundled sample.")
@click.option("--recipe", help="Train this recipe (`det-core recipes`).")
@click.option("--config", help="Train the recipe in this YAML file.")
@click.option("--data", help="Root folder of the data set.")
@click.option("--init", help="Start from the weights of this checkpoint (fine-tuning).")
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change one setting; may be repeated.")
@click.option("--work-dir", help="Run folder; by default runs/RECIPE.")
@click.option("--resume", is_flag=True, help="Go on where --work-dir left off (needs no recipe).")
@click.option("--amp", "use_amp", is_flag=True, help="Mixed precision (bfloat16, unless the recipe says fp16).")
@click.option("--device", help="cpu, cuda, cuda:N or mps; by default the GPU if there is one.")
@click.option("--max-steps", type=click.IntRange(min=1), help="Save and leave after this step.")
@click.option("--on-bad-sample", type=click.Choice(["error", "skip"]), help="Stop at bad data, or leave it out.")
@click.option(
    "--log-every",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Steps between rows of metrics.jsonl.",
)
@click.option("--save-every", type=click.IntRange(min=1), help="Steps between checkpoints, beside each epoch's end.")
def command(
    plugin: str | None,
    recipe: str | None,
    config: str | None,
    data: str | None,
    init: str | None,
    overrides: tuple[str, ...],
    work_dir: str | None,
    resume: bool,
    use_amp: bool,
    device: str | None,
    max_steps: int | None,
    on_bad_sample: str | None,
    log_every: int,
    save_every: int | None,
) -> None:
    """Train a detector: a recipe, a plugin's own, or yours.

    Under torchrun (one node or several) every process trains its share of each batch.
    """
    if resume and not (plugin or recipe or config):
        chosen = _recipe_of(work_dir, data, with_bad_samples(overrides, on_bad_sample))
    else:
        chosen = choose_recipe(
            plugin=plugin, recipe=recipe, config=config, data=data, overrides=overrides, on_bad_sample=on_bad_sample
        )
    if use_amp:
        chosen = amp(chosen)
    folder = Path(work_dir) if work_dir else Path("runs") / chosen.name.replace("/", "-")
    from det_core.engine.train import train

    train(
        chosen,
        work_dir=folder,
        init=init,
        resume=resume,
        device=device,
        max_steps=max_steps,
        log_every=log_every,
        save_every=save_every,
    )


def _recipe_of(work_dir: str | None, data: str | None, overrides: Sequence[str]) -> Recipe:
    """The recipe that a run folder keeps."""
    if work_dir is None:
        raise DetError("--resume goes on with a run: give its --work-dir, or the recipe that it trains")
    path = Path(work_dir) / "recipe.yaml"
    if not path.is_file():
        raise DetError(f"{path}: no such file, so there is no run to resume; give the recipe to start it")
    recipe = load_recipe(path, overrides)
    return recipe if data is None else recipe.with_data(data)
