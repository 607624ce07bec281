"""Hooks of this plugin: the FPN neck and its weight maps."""

from __future__ import annotations

from det_core.hookspecs import provides
from det_plugin_fpn.config import FPNConfig
from det_plugin_fpn.weights import WEIGHT_MAPS

det_necks = provides(FPNConfig)
det_weight_maps = provides(*WEIGHT_MAPS)
