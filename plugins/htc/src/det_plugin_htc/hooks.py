"""Hooks of this plugin: the HTC head, recipes and weight maps."""

from __future__ import annotations

from det_core.hookspecs import provides
from det_plugin_htc.config import HTCHeadConfig
from det_plugin_htc.recipes import ENTRIES
from det_plugin_htc.weights import WEIGHT_MAPS

det_heads = provides(HTCHeadConfig)
det_recipes = provides(*ENTRIES)
det_weight_maps = provides(*WEIGHT_MAPS)
