"""Hooks of this plugin: the ResNet backbone, its stages as trunks, and weight maps."""

from __future__ import annotations

from collections.abc import Sequence

from det_core.hookspecs import hookimpl
from det_core.offers import WeightMap
from det_core.settings import Component
from det_core.slots import BackboneConfig
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig
from det_plugin_resnet.weights import WEIGHT_MAPS


@hookimpl
def det_backbones() -> Sequence[type[BackboneConfig]]:
    return [ResNetConfig]


@hookimpl
def det_heads() -> Sequence[type[Component]]:
    return [ResNetStageConfig]


@hookimpl
def det_weight_maps() -> Sequence[WeightMap]:
    return WEIGHT_MAPS
