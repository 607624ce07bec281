"""The zoo entries of RetinaNet, and its demo."""

from __future__ import annotations

from det_core.offers import RecipeEntry
from det_core.zoo import zoo_entries
from det_plugin_retinanet.demos import demo_recipe
from det_plugin_retinanet.torchvision_recipes import TORCHVISION_ENTRY
from det_plugin_retinanet.zoo import ROWS, SUMMARY, zoo_recipe

ENTRIES = (
    *zoo_entries(
        ROWS,
        zoo_recipe,
        default="retinanet/r50-fpn-1x",
        summary=lambda row: SUMMARY,
    ),
    TORCHVISION_ENTRY,
    RecipeEntry(
        name="retinanet/r18-fpn-demo", make=demo_recipe, demo=True, summary=f"{SUMMARY}, small, on the bundled sample"
    ),
)
