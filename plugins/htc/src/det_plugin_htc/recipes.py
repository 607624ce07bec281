"""The zoo entries of Hybrid Task Cascade, and its demos."""

from __future__ import annotations

from functools import partial

from det_core.offers import RecipeEntry
from det_core.zoo import zoo_entries
from det_plugin_htc.demos import demo_recipe
from det_plugin_htc.zoo import ROWS, SUMMARIES, zoo_recipe

ENTRIES = (
    *zoo_entries(
        ROWS,
        zoo_recipe,
        default="htc/r50-fpn-1x",
        summary=lambda row: SUMMARIES[row.model],
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
