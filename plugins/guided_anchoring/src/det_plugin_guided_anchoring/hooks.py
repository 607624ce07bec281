"""Hooks of this plugin: heads with guided anchors, recipes and weight maps."""

from __future__ import annotations

from det_core.hookspecs import provides
from det_plugin_guided_anchoring.config import GARetinaNetHeadConfig, GARPNConfig
from det_plugin_guided_anchoring.recipes import ENTRIES
from det_plugin_guided_anchoring.weights import WEIGHT_MAPS

det_heads = provides(GARPNConfig, GARetinaNetHeadConfig)
det_recipes = provides(*ENTRIES)
det_weight_maps = provides(*WEIGHT_MAPS)
