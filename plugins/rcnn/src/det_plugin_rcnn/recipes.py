"""The zoo entries of the R-CNN family, its demos, and torchvision's detectors."""

from __future__ import annotations

from functools import partial

from det_core.offers import RecipeEntry
from det_core.zoo import zoo_entries
from det_plugin_rcnn.demos import c4_demo, demo_recipe
from det_plugin_rcnn.torchvision_recipes import TORCHVISION_ENTRIES
from det_plugin_rcnn.zoo import ROWS, SUMMARIES, zoo_recipe

ENTRIES = (
    *TORCHVISION_ENTRIES,
    *zoo_entries(
        ROWS,
        zoo_recipe,
        default="mask-rcnn/r50-fpn-1x",
        summary=lambda row: SUMMARIES[row.model],
    ),
    *(
        RecipeEntry(
            name=f"{model}/r18-fpn-demo",
            make=partial(demo_recipe, model),
            demo=model == "mask-rcnn",
            summary=f"{SUMMARIES[model]}, small, on the bundled sample",
        )
        for model in ("rpn", "fast-rcnn", "faster-rcnn", "mask-rcnn")
    ),
    RecipeEntry(
        name="faster-rcnn/r18-c4-demo",
        make=c4_demo,
        summary=f"{SUMMARIES['faster-rcnn']}, on one map with a shared last stage, on the bundled sample",
    ),
)
