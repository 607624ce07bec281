"""Hooks of this plugin: the cascade head, recipes and weight maps."""

from __future__ import annotations

from det_core.hookspecs import provides
from det_plugin_cascade.config import CascadeHeadConfig
from det_plugin_cascade.recipes import ENTRIES
from det_plugin_cascade.weights import WEIGHT_MAPS

det_heads = provides(CascadeHeadConfig)
det_recipes = provides(*ENTRIES)
det_weight_maps = provides(*WEIGHT_MAPS)
