"""`det-core recipes`: the zoo, one recipe whole, and the schema of all."""

from __future__ import annotations

from typing import Any

import attrs
import click

from det_core.cli.output import print_json, print_table
from det_core.plugins import PluginError, install_hint, nearest, plugin_manager
from det_core.recipe import Published, RecipeEntry, load_recipe, recipe_schema

FIGURES = {"box_ap": "box AP", "mask_ap": "mask AP", "ar1000": "AR@1000", "voc_ap50": "VOC AP50"}


@click.group(name="recipes", invoke_without_command=True)
@click.option("--model", help="Only the recipes of one model, such as mask-rcnn.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def command(ctx: click.Context, model: str | None, as_json: bool) -> None:
    """List recipes by model, with the figures that others published for them."""
    if ctx.invoked_subcommand is not None:
        return
    entries = _of_model(list(plugin_manager().recipes().values()), model)
    if as_json:
        print_json([_plain(e) for e in entries])
    else:
        _show(entries)


def _model(entry: RecipeEntry) -> str:
    return entry.name.partition("/")[0]


def _of_model(entries: list[RecipeEntry], model: str | None) -> list[RecipeEntry]:
    models = sorted({_model(e) for e in entries})
    if model is not None and model not in models:
        there = nearest(model, models) or f"; there are: {', '.join(models) or 'none'}"
        raise PluginError(f"no recipes of model {model!r}{there}")
    return [e for e in entries if model in (None, _model(e))]


def _plain(entry: RecipeEntry) -> dict[str, Any]:
    published = attrs.asdict(entry.published) if entry.published else None
    return {
        "name": entry.name,
        "model": _model(entry),
        "summary": entry.summary,
        "default": entry.default,
        "demo": entry.demo,
        "published": published,
        "requires": list(entry.requires),
        "missing": entry.missing(),
    }


def _show(entries: list[RecipeEntry]) -> None:
    if not entries:
        click.echo("no recipes: no installed plugin brings any (`det-core plugins`)")
        return
    figures = {k: title for k, title in FIGURES.items() if any(_figure(e.published, k) for e in entries)}
    for model in dict.fromkeys(_model(e) for e in entries):
        rows = [(e.name, *(_figure(e.published, k) for k in figures), _notes(e)) for e in entries if _model(e) == model]
        print_table((model, *figures.values(), ""), rows, right=tuple(figures.values()))
        click.echo()
    sources = sorted({f"{e.published.dataset}: {e.published.source}" for e in entries if e.published})
    if sources:
        click.echo(f"figures: percent, as published by others, not measured here ({'; '.join(sources)})")
        if any("(" in _figure(e.published, k) for e in entries for k in figures):
            click.echo("in brackets: re-runs under the conventions that these recipes follow")


def _figure(published: Published | None, key: str) -> str:
    """A published figure, and in brackets that of its later re-run."""
    value, modern = (getattr(published, name, None) for name in (key, f"modern_{key}"))
    if value is None:
        return ""
    return f"{value:.1f}" if modern is None else f"{value:.1f} ({modern:.1f})"


def _notes(entry: RecipeEntry) -> str:
    notes = [word for word, holds in (("default", entry.default), ("demo", entry.demo)) if holds]
    notes += [entry.summary] if entry.summary else []
    notes += [f"needs {m}: {install_hint(m)}" for m in entry.missing()]
    return "; ".join(notes)


@command.command()
@click.argument("name")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value, as in training.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of YAML.")
def show(name: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the whole of a recipe (a name, or a file with what it extends); `train --config` takes it back."""
    recipe = load_recipe(name, overrides)
    if as_json:
        print_json(recipe.to_plain())
    else:
        click.echo(recipe.to_yaml(), nl=False)


@command.command()
def schema() -> None:
    """Print the JSON Schema of recipe files, for an editor's completion."""
    print_json(recipe_schema())
