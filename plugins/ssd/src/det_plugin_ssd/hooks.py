"""Hooks of this plugin: SSD's backbone, neck, anchors, head and augmentation, recipes and weight maps."""

from __future__ import annotations

from collections.abc import Sequence

from det_core.hookspecs import hookimpl
from det_core.offers import RecipeEntry, WeightMap
from det_core.settings import Component
from det_plugin_ssd.augment_config import IoUCropConfig, PhotometricDistortConfig, ZoomOutConfig
from det_plugin_ssd.config import SSDAnchorsConfig, SSDHeadConfig, SSDNeckConfig, VGGConfig
from det_plugin_ssd.recipes import ENTRIES
from det_plugin_ssd.weights import WEIGHT_MAPS


@hookimpl
def det_backbones() -> Sequence[type[Component]]:
    return [VGGConfig]


@hookimpl
def det_necks() -> Sequence[type[Component]]:
    return [SSDNeckConfig]


@hookimpl
def det_heads() -> Sequence[type[Component]]:
    return [SSDHeadConfig]


@hookimpl
def det_targets() -> Sequence[type[Component]]:
    return [SSDAnchorsConfig]


@hookimpl
def det_transforms() -> Sequence[type[Component]]:
    return [PhotometricDistortConfig, ZoomOutConfig, IoUCropConfig]


@hookimpl
def det_recipes() -> Sequence[RecipeEntry]:
    return ENTRIES


@hookimpl
def det_weight_maps() -> Sequence[WeightMap]:
    return WEIGHT_MAPS
