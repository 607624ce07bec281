"""Hooks of this plugin: RPN, the heads of Faster and Mask R-CNN, recipes and weight maps."""

from __future__ import annotations

from collections.abc import Sequence

from det_core.hookspecs import hookimpl
from det_core.offers import RecipeEntry, WeightMap
from det_core.settings import Component
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_rcnn.recipes import ENTRIES
from det_plugin_rcnn.weights import WEIGHT_MAPS


@hookimpl
def det_heads() -> Sequence[type[Component]]:
    return [RPNConfig, RCNNHeadConfig, FCBoxHeadConfig, ConvMaskHeadConfig]


@hookimpl
def det_recipes() -> Sequence[RecipeEntry]:
    return ENTRIES


@hookimpl
def det_weight_maps() -> Sequence[WeightMap]:
    return WEIGHT_MAPS
