"""Hooks of this plugin: the HTC head, recipes and weight maps."""

from __future__ import annotations

from collections.abc import Sequence

from det_core.hookspecs import hookimpl
from det_core.offers import RecipeEntry, WeightMap
from det_core.settings import Component
from det_plugin_htc.config import HTCHeadConfig
from det_plugin_htc.recipes import ENTRIES
from det_plugin_htc.weights import WEIGHT_MAPS


@hookimpl
def det_heads() -> Sequence[type[Component]]:
    return [HTCHeadConfig]


@hookimpl
def det_recipes() -> Sequence[RecipeEntry]:
    return ENTRIES


@hookimpl
def det_weight_maps() -> Sequence[WeightMap]:
    return WEIGHT_MAPS
