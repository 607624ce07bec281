"""The zoo entries of models with group norm, standardised weights and deformable layers."""

from __future__ import annotations

from det_core.offers import RecipeEntry
from det_core.zoo import zoo_entries
from det_plugin_gn_ws_dcn.demos import demo_recipe
from det_plugin_gn_ws_dcn.zoo import REQUIRES, ROWS, SUMMARIES, zoo_recipe

ENTRIES = (
    *zoo_entries(
        ROWS,
        zoo_recipe,
        default="faster-rcnn/r50-fpn-mdconv-c3-c5-1x",
        summary=lambda row: SUMMARIES[row.variant],
        requires=lambda row: REQUIRES.get(row.model, ()),
    ),
    RecipeEntry(
        name="faster-rcnn/r18-fpn-gn-ws-mdconv-demo",
        make=demo_recipe,
        demo=True,
        summary="with group norm, standardised weights and modulated deformable convolution, small, on the sample",
    ),
)
