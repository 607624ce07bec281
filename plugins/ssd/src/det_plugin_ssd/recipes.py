"""The zoo entries of SSD, and its demo."""

from __future__ import annotations

from det_core.offers import RecipeEntry
from det_core.zoo import zoo_entries
from det_plugin_ssd.demos import demo_recipe
from det_plugin_ssd.torchvision_recipes import TORCHVISION_ENTRY
from det_plugin_ssd.zoo import ROWS, SUMMARY, zoo_recipe

ENTRIES = (
    *zoo_entries(
        ROWS,
        zoo_recipe,
        default="ssd/vgg16-300-coco-120e",
        summary=lambda row: SUMMARY,
    ),
    TORCHVISION_ENTRY,
    RecipeEntry(name="ssd/vgg16-demo", make=demo_recipe, demo=True, summary=f"{SUMMARY}, small, on the bundled sample"),
)
