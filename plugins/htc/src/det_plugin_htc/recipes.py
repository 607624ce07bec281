"""The zoo entries of Hybrid Task Cascade, and its demos."""

from __future__ import annotations

from functools import partial

from det_core.recipe import RecipeEntry
from det_plugin_htc.demos import demo_recipe
from det_plugin_htc.zoo import ROWS, SUMMARIES, zoo_recipe

ENTRIES = (
    *(
        RecipeEntry(
            name=row.name,
            make=partial(zoo_recipe, row),
            published=row.published,
            default=row.name == "htc/r50-fpn-1x",
            summary=SUMMARIES[row.model],
        )
        for row in ROWS
    ),
    *(
        RecipeEntry(
            name=f"{model}/r18-fpn-demo",
            make=partial(demo_recipe, model),
            demo=model == "htc",
            summary=f"{SUMMARIES[model]}, small, on the bundled sample",
        )
        for model in SUMMARIES
    ),
)
