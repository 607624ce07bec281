"""Hooks of this plugin: RetinaNet's head, recipes and weight maps."""

from __future__ import annotations

from collections.abc import Sequence

from det_core.hookspecs import hookimpl
from det_core.offers import RecipeEntry, WeightMap
from det_core.settings import Component
from det_plugin_retinanet.config import RetinaNetHeadConfig
from det_plugin_retinanet.recipes import ENTRIES
from det_plugin_retinanet.weights import WEIGHT_MAPS


@hookimpl
def det_heads() -> Sequence[type[Component]]:
    return [RetinaNetHeadConfig]


@hookimpl
def det_recipes() -> Sequence[RecipeEntry]:
    return ENTRIES


@hookimpl
def det_weight_maps() -> Sequence[WeightMap]:
    return WEIGHT_MAPS
