"""Writes docs/zoo.md, the tables of all recipes, from the recipes themselves.

python docs/make_zoo.py            # tables, with the counts of docs/zoo_costs.json
python docs/make_zoo.py --count    # counts again: builds every recipe, minutes
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from det_core.cli.recipes import FIGURES, figure
from det_core.conventions import spoken
from det_core.offers import RecipeEntry
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe

HERE = Path(__file__).parent
COSTS, ZOO = HERE / "zoo_costs.json", HERE / "zoo.md"
INTRO = """# The zoo

<!-- Made by docs/make_zoo.py; change the plugins' recipes.py and published.csv, not this file. -->

{count} recipes. `det-core recipes --model NAME` lists those of a model in the terminal, `det-core recipes show NAME`
prints a whole recipe, `det-core train --recipe NAME --data ROOT` trains it.

AP and AR are percentages. AP, AR, memory per GPU, seconds per training step and images per second at test time are
published figures (the 2019 model zoo, 2 images per GPU on V100s; in brackets its later re-runs, whose conventions the
recipes follow; for `ms`, `rsb`, `tnr` and `syncbn`, mmdetection's later model zoo; for other toolboxes, those of their
own documentation). None of them was measured here. Parameters
(millions) and GFLOPs of one image at test time are counted here: two per multiply-add, with 1000 proposals unless the
recipe sets another number, and the maximum number of detections.
Images have the recipe's test size: {sizes}.

Every recipe with figures of the 2019 model zoo also exists as `MODEL/mmdet1-...`, with the conventions of mmdet 0.x and
1.x, for their weights (`det-core recipes --weights-of mmdet1`): those are the detectors that the figures of 2019 belong
to. Recipes for weights of other toolboxes follow those of their model.
"""


def tables(entries: list[RecipeEntry], costs: dict[str, list[float]]) -> str:
    """All of docs/zoo.md; costs of each name are millions of parameters, GFLOPs, height and width."""
    sizes = sorted({(int(c[2]), int(c[3])) for c in costs.values()})
    parts = [INTRO.format(count=len(entries), sizes=", ".join(f"{h} x {w}" for h, w in sizes))]
    for model, source in sorted({(e.name.partition("/")[0], e.weights_of) for e in entries}):
        own = [e for e in entries if e.name.startswith(f"{model}/") and e.weights_of == source]
        parts.append(table(f"{model}, for weights of {spoken(source)}" if source else model, own, costs))
    notes = [f"- `{e.name}`: {e.published.note}." for e in entries if e.published and e.published.note]
    if notes:
        parts.append("\n".join(["## Notes on published figures\n", *notes]) + "\n")
    return "\n".join(parts)


def table(title: str, entries: list[RecipeEntry], costs: dict[str, list[float]]) -> str:
    """The section of one model, or of those for weights of one source."""
    figures = {key: title for key, title in FIGURES.items() if any(figure(e.published, key) for e in entries)}
    head = ["recipe", *figures.values(), "M parameters", "GFLOPs", ""]
    lines = [f"## {title}\n", "| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 2) + "|---|"]
    for entry in entries:
        parameters, flops = costs[entry.name][:2]
        start = f"`--init {entry.published_weights}`" if entry.published_weights else ""
        note = "; ".join(filter(None, ["**default**" * entry.default, "demo" * entry.demo, entry.summary, start]))
        cells = [f"`{entry.name}`", *(figure(entry.published, key) for key in figures)]
        lines.append("| " + " | ".join([*cells, f"{parameters:.1f}", f"{flops:.0f}", note]) + " |")
    return "\n".join(lines) + "\n"


def count(entries: list[RecipeEntry], known: dict[str, list[float]]) -> dict[str, list[float]]:
    """Of each recipe: millions of parameters, GFLOPs, and the image's height and width.

    known: counts by name. Recipes that differ only in their training have the same.
    """
    from det_core.engine.detector_cost import recipe_cost
    from det_core.load import load_recipe

    counted = {detector_of(load_recipe(name)): cost for name, cost in known.items()}
    costs = {}
    for entry in entries:
        recipe = load_recipe(entry.name)
        key = detector_of(recipe)
        if key not in counted:
            cost = recipe_cost(recipe)
            counted[key] = [round(cost.parameters / 1e6, 3), round(cost.total_flops / 1e9, 2), *cost.size]
            sys.stderr.write(f"{entry.name}: {counted[key]}\n")
        costs[entry.name] = counted[key]
    return costs


def detector_of(recipe: Recipe) -> str:
    """What the counts depend on: the detector without its initial weights, its data, and its images at test time."""
    plain = recipe.to_plain()
    plain["detector"]["backbone"].pop("pretrained", None)
    return json.dumps([plain["detector"], plain["data"]["val"], plain["data"]["test_transforms"]], sort_keys=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true", help="count parameters and operations again")
    parser.add_argument("--missing", action="store_true", help="count those of recipes that have not been counted")
    options = parser.parse_args()
    entries = [e for e in plugin_manager().recipes().values() if e.weights_of != "mmdet1"]
    if options.count or options.missing:
        names = {e.name for e in entries}
        known = {} if options.count else json.loads(COSTS.read_text(encoding="utf8"))
        known = {name: cost for name, cost in known.items() if name in names}
        found = known | count([e for e in entries if e.name not in known], known)
        lines = ",\n".join(f"  {json.dumps(e.name)}: {json.dumps(found[e.name])}" for e in entries)
        COSTS.write_text("{\n" + lines + "\n}\n", encoding="utf8")
    ZOO.write_text(tables(entries, json.loads(COSTS.read_text(encoding="utf8"))), encoding="utf8")


if __name__ == "__main__":
    main()
