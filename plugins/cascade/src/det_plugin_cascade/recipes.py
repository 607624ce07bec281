"""The zoo entries of the cascades, and their demos."""

from __future__ import annotations

from functools import partial

from det_core.offers import RecipeEntry
from det_core.zoo import zoo_entries
from det_plugin_cascade.demos import demo_recipe
from det_plugin_cascade.zoo import ROWS, SUMMARIES, zoo_recipe

ENTRIES = (
    *zoo_entries(
        ROWS,
        zoo_recipe,
        default="cascade-mask-rcnn/r50-fpn-1x",
        summary=lambda row: SUMMARIES[row.model],
    ),
    *(
        RecipeEntry(
            name=f"{model}/r18-fpn-demo",
            make=partial(demo_recipe, model),
            demo=model == "cascade-mask-rcnn",
            summary=f"{SUMMARIES[model]}, small, on the bundled sample",
        )
        for model in SUMMARIES
    ),
)
