"""Hooks of this plugin: weight-standardised and deformable layers, recipes and weight maps."""

from __future__ import annotations

from collections.abc import Sequence

from det_core.hookspecs import hookimpl
from det_core.offers import RecipeEntry, WeightMap
from det_core.settings import Component
from det_plugin_gn_ws_dcn.config import DeformConv2dConfig, DeformRoIPoolConfig, WSConv2dConfig
from det_plugin_gn_ws_dcn.recipes import ENTRIES
from det_plugin_gn_ws_dcn.weights import WEIGHT_MAPS


@hookimpl
def det_layers() -> Sequence[type[Component]]:
    return [WSConv2dConfig, DeformConv2dConfig, DeformRoIPoolConfig]


@hookimpl
def det_recipes() -> Sequence[RecipeEntry]:
    return ENTRIES


@hookimpl
def det_weight_maps() -> Sequence[WeightMap]:
    return WEIGHT_MAPS
