"""`det-core recipes`: list recipes, show a recipe, and print the JSON Schema."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from det_core.cli.output import print_json, print_table, terminal_width
from det_core.config.differences import ABSENT, changes, differences
from det_core.config.plain import unstructure
from det_core.config.yaml_text import to_yaml
from det_core.conventions import spoken
from det_core.errors import DetError, PluginError, nearest
from det_core.known import install_hint
from det_core.load import RECIPE_SUFFIXES, base_of, load_recipe, recipe_schema
from det_core.offers import RecipeEntry
from det_core.plugins import plugin_manager
from det_core.recipe import Published, Recipe

FIGURES = {
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "ar1000": "AR@1000",
    "voc_ap50": "VOC AP50",
    "memory_gb": "GB",
    "train_s_per_iter": "s/iter",
    "inference_fps": "fps",
}
LEFT_OUT = ("GB", "s/iter", "fps")  # the last figures, left out where the terminal is narrow
COSTS = ("params M", "GFLOPs")


@click.group(name="recipes", invoke_without_command=True)
@click.option("--model", help="Only recipes of this model, such as mask-rcnn.")
@click.option("--find", "words", multiple=True, metavar="TEXT", help="Only names with this text; may be repeated.")
@click.option("--all", "every", is_flag=True, help="Also those for weights of other toolboxes, as --find does.")
@click.option("--weights-of", "source", help="Only those for weights of this source, such as detectron2.")
@click.option("--dataset", help="Only recipes with figures on this data set, such as voc.")
@click.option("--cost", is_flag=True, help="Also build each detector; show parameters and GFLOPs of one test image.")
@click.option("--config", help="With --cost: only of the recipe in this YAML file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def command(
    ctx: click.Context,
    model: str | None,
    words: tuple[str, ...],
    every: bool,
    source: str | None,
    dataset: str | None,
    cost: bool,
    config: str | None,
    as_json: bool,
) -> None:
    """List recipes by model, with the figures that others published for them.

    Weights of other toolboxes require recipes with their conventions; without --all, only torchvision's are listed.
    """
    if ctx.invoked_subcommand is not None:
        return
    if config is not None:
        _show_own(Path(config), cost, as_json)
        return
    found = _chosen(list(plugin_manager().recipes().values()), model, words, dataset, source)
    entries = [e for e in found if every or words or source or e.weights_of in ("", "torchvision")]
    costs = {e.name: None if e.missing() else _cost_of(load_recipe(e.name)) for e in entries} if cost else {}
    if as_json:
        print_json([_plain(e) | ({"cost": costs[e.name]} if cost else {}) for e in entries])
    else:
        _show(entries, costs)
        hidden = Counter(e.weights_of for e in found) - Counter(e.weights_of for e in entries)
        if hidden:
            counts = ", ".join(f"{number} of {spoken(name)}" for name, number in hidden.items())
            click.echo(f"and recipes for weights of other toolboxes: {counts} (--weights-of SOURCE, or --all)")


def _show_own(file: Path, cost: bool, as_json: bool) -> None:
    """Print the cost of the recipe in a file; DetError without --cost."""
    if not cost:
        raise DetError("--config is for --cost; `det-core recipes show FILE` prints a recipe")
    recipe = load_recipe(file)
    found = _cost_of(recipe)
    if as_json:
        print_json({"name": recipe.name, "cost": found})
        return
    print_table(("", *COSTS), [(recipe.name, *_cost_cells(found))], right=COSTS)
    click.echo(_about_costs([found]))


def _model(entry: RecipeEntry) -> str:
    return entry.name.partition("/")[0]


def _chosen(
    entries: list[RecipeEntry], model: str | None, words: tuple[str, ...], dataset: str | None, source: str | None
) -> list[RecipeEntry]:
    _check_known("of model", model, {_model(e) for e in entries})
    _check_known("for weights of", source, {e.weights_of for e in entries if e.weights_of})
    _check_known("on data set", dataset, {e.published.dataset for e in entries if e.published})
    chosen = [
        e
        for e in entries
        if model in (None, _model(e))
        and source in (None, e.weights_of)
        and (dataset is None or (e.published is not None and e.published.dataset == dataset))
        and all(word in e.name for word in words)
    ]
    if entries and not chosen:
        what = [f"--model {model}"] * (model is not None) + [f"--weights-of {source}"] * (source is not None)
        what += [f"--dataset {dataset}"] * (dataset is not None)
        raise PluginError(f"no recipe matches {' '.join([*what, *(f'--find {w}' for w in words)])}; remove an option")
    return chosen


def _check_known(what: str, value: str | None, known: set[str]) -> None:
    if value is not None and value not in known:
        hint = nearest(value, sorted(known)) or f"; available: {', '.join(sorted(known)) or 'none'}"
        raise PluginError(f"no recipes {what} {value!r}{hint}")


def _cost_of(recipe: Recipe) -> dict[str, Any]:
    """Parameters and FLOPs as plain data."""
    from det_core.engine.detector_cost import recipe_cost

    cost = recipe_cost(recipe)
    return attrs.asdict(cost) | {"total_flops": cost.total_flops}


def _plain(entry: RecipeEntry) -> dict[str, Any]:
    published = unstructure(entry.published) if entry.published else None
    return {
        "name": entry.name,
        "model": _model(entry),
        "summary": entry.summary,
        "default": entry.default,
        "demo": entry.demo,
        "weights_of": entry.weights_of,
        "published_weights": entry.published_weights,
        "published": published,
        "requires": list(entry.requires),
        "missing": entry.missing(),
    }


def _show(entries: list[RecipeEntry], costs: dict[str, dict[str, Any] | None]) -> None:
    if not entries:
        click.echo("no recipes: no installed plugin provides any (`det-core plugins`)")
        return
    for model, source in sorted({(_model(e), e.weights_of) for e in entries}):
        own = [e for e in entries if (_model(e), e.weights_of) == (model, source)]
        _show_model(f"{model}, for weights of {spoken(source)}" if source else model, own, costs)
        click.echo()
    if any(e.published for e in entries):
        _show_sources([e.published for e in entries if e.published])
    if known := [c for c in costs.values() if c is not None]:
        click.echo(_about_costs(known))


def _about_costs(costs: Sequence[dict[str, Any]]) -> str:
    shown = " or ".join(f"{height}x{width}" for height, width in sorted({c["size"] for c in costs}))
    return f"GFLOPs: of one test image of {shown}, two per multiply-add; computed by det"


def _show_model(title: str, entries: list[RecipeEntry], costs: dict[str, dict[str, Any] | None]) -> None:
    """Print a table of a model's recipes, with their most common summary above it, so that a row fits a line."""
    ((common, times),) = Counter(e.summary for e in entries).most_common(1)
    common = common if times > 1 else ""
    if common:
        click.echo(f"{title}: {common}")
    figures = {k: title for k, title in FIGURES.items() if any(figure(e.published, k) for e in entries)}
    titles = (*figures.values(), *(COSTS if costs else ()))
    rows = [
        (
            e.name,
            *(figure(e.published, k) for k in figures),
            *(_cost_cells(costs[e.name]) if costs else ()),
            _notes(e, common),
        )
        for e in entries
    ]
    heading = "" if common else title
    if _fits(rows, terminal_width()):
        print_table((heading, *titles, ""), rows, right=titles)
        return
    kept = [0, *(n for n, t in enumerate(titles, start=1) if t not in LEFT_OUT)]
    _print_narrow([[(heading, *titles)[n] for n in kept], *([row[n] for n in kept] for row in rows)], rows)


def _fits(rows: Sequence[Sequence[str]], width: int) -> bool:
    """Whether rows fit a line, with two spaces between columns."""
    return sum(max(map(len, column)) + 2 for column in zip(*rows, strict=True)) <= width + 2


def _print_narrow(lines: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> None:
    """Print a table for a narrow terminal: notes, the last cells of rows, are on lines of their own."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line, note in zip(lines, ("", *(row[-1] for row in rows)), strict=True):
        cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        click.echo("  ".join(cells).rstrip())
        for part in textwrap.wrap(note, max(terminal_width() - 4, 20)):
            click.echo(f"    {part}")


def _cost_cells(cost: dict[str, Any] | None) -> tuple[str, str]:
    if cost is None:
        return "", ""
    return f"{cost['parameters'] / 1e6:.1f}", f"{cost['total_flops'] / 1e9:.0f}"


def _show_sources(published: list[Published]) -> None:
    sources: dict[str, set[str]] = {}
    for p in published:
        sources.setdefault(p.source, set()).add(p.dataset)
    shown = "; ".join(f"{', '.join(sorted(datasets))}: {source}" for source, datasets in sorted(sources.items()))
    click.echo(f"figures: as published by others, not measured here ({shown}); AP and AR in percent")
    if any(figure(p, key) for p in published for key in ("memory_gb", "train_s_per_iter", "inference_fps")):
        click.echo("GB of memory per GPU and seconds per step in training, images per second at test")
    if any("(" in figure(p, key) for p in published for key in FIGURES):
        click.echo("in brackets: re-runs with the conventions of these recipes")


def figure(published: Published | None, key: str) -> str:
    """A published figure, and the figure of its later re-run in brackets."""
    value, modern = (getattr(published, name, None) for name in (key, f"modern_{key}"))
    digits = 2 if key == "train_s_per_iter" else 1
    shown = "" if value is None else f"{value:.{digits}f}"
    return shown if modern is None else f"{shown} ({modern:.{digits}f})".strip()


def _notes(entry: RecipeEntry, common: str) -> str:
    """The notes on a recipe; of its summary only what differs from the `common` one."""
    notes = [word for word, holds in (("default", entry.default), ("demo", entry.demo)) if holds]
    own = entry.summary
    if common:
        own = "" if own == common else own.removeprefix(f"{common}, ")
    notes += [own] if own else []
    notes += [f"--init {entry.published_weights}"] if entry.published_weights else []
    notes += [f"needs {m}: {install_hint(m)}" for m in entry.missing()]
    return "; ".join(notes)


@command.command()
@click.argument("name")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value, as in training.")
@click.option(
    "--full/--changed",
    default=True,
    help="All values, or only those that differ from the recipe that a file extends or, without one, from defaults.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of YAML.")
def show(name: str, overrides: tuple[str, ...], full: bool, as_json: bool) -> None:
    """Print a recipe, given its name or a file. `train --config` reads the output."""
    recipe = load_recipe(name, overrides)
    plain = recipe.to_plain() if full else _changed(name, recipe)
    if as_json:
        print_json(plain)
    else:
        click.echo(to_yaml(plain), nl=False)


def _changed(name: str, recipe: Recipe) -> dict[str, Any]:
    """A recipe as a file that says only what differs from the recipe that it extends, or from the defaults."""
    path = Path(name)
    found = base_of(path) if path.suffix in RECIPE_SUFFIXES else None
    if found is None:
        plain: dict[str, Any] = unstructure(recipe, changed_only=True)
        return plain
    base_name, base = found
    return {"extends": base_name, **changes(base.to_plain(), recipe.to_plain())}


@command.command()
@click.argument("first")
@click.argument("second")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def diff(first: str, second: str, as_json: bool) -> None:
    """Print what differs between two recipes, each given by its name or a file."""
    found = list(differences(load_recipe(first).to_plain(), load_recipe(second).to_plain()))
    if as_json:
        print_json([{"path": d.path, "first": _value(d.before), "second": _value(d.after)} for d in found])
        return
    for d in found:
        click.echo(f"{d.path}: {_shown(d.before)} -> {_shown(d.after)}")
    if not found:
        click.echo("the recipes are equal")


def _value(value: Any) -> Any:
    return None if value is ABSENT else value


def _shown(value: Any) -> str:
    """A value on one line, as YAML has it."""
    return "(none)" if value is ABSENT else json.dumps(value, ensure_ascii=False)


@command.command()
def schema() -> None:
    """Print the JSON Schema of recipe files, for completion in editors."""
    print_json(recipe_schema())
