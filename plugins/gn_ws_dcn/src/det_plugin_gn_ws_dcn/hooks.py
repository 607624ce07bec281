"""Hooks of this plugin: weight-standardised and deformable layers, recipes and weight maps."""

from __future__ import annotations

from det_core.hookspecs import provides
from det_plugin_gn_ws_dcn.config import DeformConv2dConfig, DeformRoIPoolConfig, WSConv2dConfig
from det_plugin_gn_ws_dcn.recipes import ENTRIES
from det_plugin_gn_ws_dcn.weights import WEIGHT_MAPS

det_layers = provides(WSConv2dConfig, DeformConv2dConfig, DeformRoIPoolConfig)
det_recipes = provides(*ENTRIES)
det_weight_maps = provides(*WEIGHT_MAPS)
