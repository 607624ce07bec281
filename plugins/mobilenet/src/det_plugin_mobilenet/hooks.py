"""Hooks of this plugin: the MobileNetV3 backbone, recipes and weight maps."""

from __future__ import annotations

from det_core.hookspecs import provides
from det_plugin_mobilenet.config import MobileNetV3Config
from det_plugin_mobilenet.recipes import ENTRIES
from det_plugin_mobilenet.weights import WEIGHT_MAPS

det_backbones = provides(MobileNetV3Config)
det_recipes = provides(*ENTRIES)
det_weight_maps = provides(*WEIGHT_MAPS)
