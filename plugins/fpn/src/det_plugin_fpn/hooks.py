"""Hooks of this plugin: the FPN neck and its weight maps."""

from __future__ import annotations

from collections.abc import Sequence

from det_core.hookspecs import hookimpl
from det_core.offers import WeightMap
from det_core.slots import NeckConfig
from det_plugin_fpn.config import FPNConfig
from det_plugin_fpn.weights import WEIGHT_MAPS


@hookimpl
def det_necks() -> Sequence[type[NeckConfig]]:
    return [FPNConfig]


@hookimpl
def det_weight_maps() -> Sequence[WeightMap]:
    return WEIGHT_MAPS
