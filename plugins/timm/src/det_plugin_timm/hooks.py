"""Hooks of this plugin: timm's networks as a backbone, a neck, a crop, recipes and weight maps."""

from __future__ import annotations

from det_core.hookspecs import provides
from det_plugin_timm.config import LevelConvsConfig, SizedCropConfig, TimmConfig
from det_plugin_timm.recipes import ENTRIES
from det_plugin_timm.weights import WEIGHT_MAPS

det_backbones = provides(TimmConfig)
det_necks = provides(LevelConvsConfig)
det_transforms = provides(SizedCropConfig)
det_recipes = provides(*ENTRIES)
det_weight_maps = provides(*WEIGHT_MAPS)
