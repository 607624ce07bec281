"""The zoo entries of SSD, and its demo."""

from __future__ import annotations

from functools import partial

from det_core.recipe import RecipeEntry
from det_plugin_ssd.demos import demo_recipe
from det_plugin_ssd.torchvision_recipes import TORCHVISION_ENTRY
from det_plugin_ssd.zoo import ROWS, SUMMARY, zoo_recipe

ENTRIES = (
    *(
        RecipeEntry(
            name=row.name,
            make=partial(zoo_recipe, row),
            published=row.published,
            default=row.name == "ssd/vgg16-300-coco-120e",
            summary=SUMMARY,
        )
        for row in ROWS
    ),
    TORCHVISION_ENTRY,
    RecipeEntry(name="ssd/vgg16-demo", make=demo_recipe, demo=True, summary=f"{SUMMARY}, small, on the bundled sample"),
)
