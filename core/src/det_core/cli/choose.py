"""Which recipe a command line means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import click

from det_core.config.base import DetError
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe, load_recipe


def choose_recipe(
    *,
    plugin: str | None,
    recipe: str | None,
    config: str | None,
    data: str | None,
    overrides: Sequence[str] = (),
    on_bad_sample: str | None = None,
) -> Recipe:
    """The recipe of exactly one of --plugin, --recipe and --config, on --data if given.

    A plugin stands for its default recipe, or without data for its `demo` on the bundled sample. Raises DetError where
    none or several are given.
    """
    given = [f"--{n}" for n, v in (("plugin", plugin), ("recipe", recipe), ("config", config)) if v is not None]
    if len(given) != 1:
        found = " and ".join(given) if given else "none of them"
        raise DetError(f"found {found}: give one of --plugin, --recipe or --config (`det-core recipes` lists recipes)")
    extra = with_bad_samples(overrides, on_bad_sample)
    if plugin is not None:
        demo = data is None
        name = plugin_manager().default_recipe(plugin, demo=demo)
        reason = "on the bundled sample, because no --data was given" if demo else f"on {data}"
        owner = plugin_manager().recipe_owner(name)
        whose = "" if plugin in (owner.name, owner.distribution) else f" of {owner.label}, which uses it,"
        click.echo(f"--plugin {plugin}: recipe {name}{whose} {reason}")
        chosen = load_recipe(name, extra)
    elif recipe is not None:
        chosen = load_recipe(recipe, extra)
    else:
        chosen = load_recipe(Path(config or ""), extra)
    return chosen if data is None else chosen.with_data(data)


def with_bad_samples(overrides: Sequence[str], on_bad_sample: str | None) -> list[str]:
    """The overrides, with what `--on-bad-sample` says."""
    return [*overrides, *([f"data.on_bad_sample={on_bad_sample}"] if on_bad_sample else [])]


def amp(recipe: Recipe) -> Recipe:
    """The recipe in mixed precision: what it says itself, or bfloat16."""
    if recipe.schedule.precision != "fp32":
        return recipe
    return attrs.evolve(recipe, schedule=attrs.evolve(recipe.schedule, precision="bf16"))
