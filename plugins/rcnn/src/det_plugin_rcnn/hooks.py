"""Hooks of this plugin: RPN, the heads of Faster and Mask R-CNN, recipes and weight maps."""

from __future__ import annotations

from det_core.hookspecs import provides
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
from det_plugin_rcnn.detectron_recipes import ENTRIES as DETECTRON
from det_plugin_rcnn.recipes import ENTRIES
from det_plugin_rcnn.strong_recipes import ENTRIES as STRONG
from det_plugin_rcnn.weights import WEIGHT_MAPS

det_heads = provides(RPNConfig, RCNNHeadConfig, FCBoxHeadConfig, ConvMaskHeadConfig)
det_recipes = provides(*ENTRIES, *STRONG, *DETECTRON)
det_weight_maps = provides(*WEIGHT_MAPS)
