"""Hooks of this plugin: RetinaNet's head, recipes and weight maps."""

from __future__ import annotations

from det_core.hookspecs import provides
from det_plugin_retinanet.config import RetinaNetHeadConfig
from det_plugin_retinanet.recipes import ENTRIES
from det_plugin_retinanet.weights import WEIGHT_MAPS

det_heads = provides(RetinaNetHeadConfig)
det_recipes = provides(*ENTRIES)
det_weight_maps = provides(*WEIGHT_MAPS)
