"""The zoo entries of Guided Anchoring, and its demo."""

from __future__ import annotations

from det_core.offers import RecipeEntry
from det_core.zoo import zoo_entries
from det_plugin_guided_anchoring.demos import demo_recipe
from det_plugin_guided_anchoring.zoo import ROWS, SUMMARIES, zoo_recipe

ENTRIES = (
    *zoo_entries(
        ROWS,
        zoo_recipe,
        default="ga-faster-rcnn/r50-caffe-fpn-1x",
        summary=lambda row: SUMMARIES[row.model],
    ),
    RecipeEntry(
        name="ga-retinanet/r18-fpn-demo",
        make=demo_recipe,
        demo=True,
        summary=f"{SUMMARIES['ga-retinanet']}, small, on the bundled sample",
    ),
)
