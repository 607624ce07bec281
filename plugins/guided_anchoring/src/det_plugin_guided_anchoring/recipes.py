"""The zoo entries of Guided Anchoring, and its demo."""

from __future__ import annotations

from functools import partial

from det_core.recipe import RecipeEntry
from det_plugin_guided_anchoring.demos import demo_recipe
from det_plugin_guided_anchoring.zoo import ROWS, SUMMARIES, zoo_recipe

ENTRIES = (
    *(
        RecipeEntry(
            name=row.name,
            make=partial(zoo_recipe, row),
            published=row.published,
            default=row.name == "ga-faster-rcnn/r50-caffe-fpn-1x",
            summary=SUMMARIES[row.model],
        )
        for row in ROWS
    ),
    RecipeEntry(
        name="ga-retinanet/r18-fpn-demo",
        make=demo_recipe,
        demo=True,
        summary=f"{SUMMARIES['ga-retinanet']}, small, on the bundled sample",
    ),
)
