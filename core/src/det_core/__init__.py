"""`det`: object detection in PyTorch, every architecture a plugin.

The names below are imported when they are first used, so that `import det_core` costs nothing. See each one's own
module for what it takes and gives.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from det_core import hookspecs
    from det_core.config.base import ConfigError, DetError, FeatureSpec, RegionSpec
    from det_core.drawing import draw
    from det_core.engine.checkpoint import load_detector
    from det_core.engine.evaluate import evaluate
    from det_core.engine.inference import for_inference
    from det_core.engine.predict import predict
    from det_core.engine.train import train
    from det_core.hookspecs import hookimpl
    from det_core.model.detector import Detector
    from det_core.model.detector_config import DetectorConfig
    from det_core.plugins import PluginError, plugin_manager
    from det_core.recipe import Recipe, RecipeEntry, load_recipe
    from det_core.structures import Batch, Classes, Detections, LossTerm, Targets
    from det_core.weights import import_weights

__version__ = "0.1.0"

_HOME = {
    "Batch": "det_core.structures",
    "Classes": "det_core.structures",
    "ConfigError": "det_core.config.base",
    "DetError": "det_core.config.base",
    "Detections": "det_core.structures",
    "Detector": "det_core.model.detector",
    "DetectorConfig": "det_core.model.detector_config",
    "FeatureSpec": "det_core.config.base",
    "LossTerm": "det_core.structures",
    "PluginError": "det_core.plugins",
    "Recipe": "det_core.recipe",
    "RecipeEntry": "det_core.recipe",
    "RegionSpec": "det_core.config.base",
    "Targets": "det_core.structures",
    "draw": "det_core.drawing",
    "evaluate": "det_core.engine.evaluate",
    "for_inference": "det_core.engine.inference",
    "hookimpl": "det_core.hookspecs",
    "import_weights": "det_core.weights",
    "load_detector": "det_core.engine.checkpoint",
    "load_recipe": "det_core.recipe",
    "plugin_manager": "det_core.plugins",
    "predict": "det_core.engine.predict",
    "train": "det_core.engine.train",
}

__all__ = [
    "Batch",
    "Classes",
    "ConfigError",
    "DetError",
    "Detections",
    "Detector",
    "DetectorConfig",
    "FeatureSpec",
    "LossTerm",
    "PluginError",
    "Recipe",
    "RecipeEntry",
    "RegionSpec",
    "Targets",
    "draw",
    "evaluate",
    "for_inference",
    "hookimpl",
    "hookspecs",
    "import_weights",
    "load_detector",
    "load_recipe",
    "plugin_manager",
    "predict",
    "train",
]


def __getattr__(name: str) -> object:
    if name == "hookspecs":
        return importlib.import_module("det_core.hookspecs")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
