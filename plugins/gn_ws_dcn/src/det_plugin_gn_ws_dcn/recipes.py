"""The zoo entries of models with group norm, standardised weights and deformable layers."""

from __future__ import annotations

from functools import partial

from det_core.recipe import RecipeEntry
from det_plugin_gn_ws_dcn.demos import demo_recipe
from det_plugin_gn_ws_dcn.zoo import REQUIRES, ROWS, SUMMARIES, zoo_recipe

ENTRIES = (
    *(
        RecipeEntry(
            name=row.name,
            make=partial(zoo_recipe, row),
            requires=REQUIRES.get(row.model, ()),
            published=row.published,
            default=row.name == "faster-rcnn/r50-fpn-mdconv-c3-c5-1x",
            summary=SUMMARIES[row.variant],
        )
        for row in ROWS
    ),
    RecipeEntry(
        name="faster-rcnn/r18-fpn-gn-ws-mdconv-demo",
        make=demo_recipe,
        demo=True,
        summary="with group norm, standardised weights and modulated deformable convolution, small, on the sample",
    ),
)
