"""Hooks of this plugin: SSD's backbone, neck, anchors, head and augmentation, recipes and weight maps."""

from __future__ import annotations

from det_core.hookspecs import provides
from det_plugin_ssd.augment_config import IoUCropConfig, PhotometricDistortConfig, ZoomOutConfig
from det_plugin_ssd.config import SSDAnchorsConfig, SSDHeadConfig, SSDNeckConfig, VGGConfig
from det_plugin_ssd.recipes import ENTRIES
from det_plugin_ssd.weights import WEIGHT_MAPS

det_backbones = provides(VGGConfig)
det_necks = provides(SSDNeckConfig)
det_heads = provides(SSDHeadConfig)
det_targets = provides(SSDAnchorsConfig)
det_transforms = provides(PhotometricDistortConfig, ZoomOutConfig, IoUCropConfig)
det_recipes = provides(*ENTRIES)
det_weight_maps = provides(*WEIGHT_MAPS)
