"""Hooks of this plugin: the ResNet backbone, its stages as trunks, and weight maps."""

from __future__ import annotations

from det_core.hookspecs import provides
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig
from det_plugin_resnet.weights import WEIGHT_MAPS

det_backbones = provides(ResNetConfig)
det_heads = provides(ResNetStageConfig)
det_weight_maps = provides(*WEIGHT_MAPS)
