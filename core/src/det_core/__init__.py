"""`det`: object detection in PyTorch, every architecture a plugin.

The names below are imported on first use, so that `import det_core` is fast. Each is documented in its module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_core.engine.checkpoint import (
        load_detector as load_detector,
        read_header as read_header,
        save_detector as save_detector,
        weights_file as weights_file,
    )
    from det_core.engine.evaluate import evaluate as evaluate
    from det_core.engine.predict import training_batch as training_batch
    from det_core.engine.predictor import (
        Predictor as Predictor,
        predict as predict,
    )
    from det_core.engine.prepare_inference import for_inference as for_inference
    from det_core.engine.tiling import Tiling as Tiling
    from det_core.engine.train import train as train
    from det_core.errors import (
        ConfigError as ConfigError,
        DetError as DetError,
        PluginError as PluginError,
    )
    from det_core.hookspecs import hookimpl as hookimpl
    from det_core.load import load_recipe as load_recipe
    from det_core.model.detector import Detector as Detector
    from det_core.model.detector_config import DetectorConfig as DetectorConfig
    from det_core.offers import RecipeEntry as RecipeEntry
    from det_core.plugins import (
        plugin_manager as plugin_manager,
        register as register,
    )
    from det_core.recipe import Recipe as Recipe
    from det_core.reports.drawing import draw as draw
    from det_core.specs import (
        FeatureSpec as FeatureSpec,
        RegionSpec as RegionSpec,
    )
    from det_core.structures import (
        Batch as Batch,
        Classes as Classes,
        Detections as Detections,
        LossTerm as LossTerm,
        Targets as Targets,
    )
    from det_core.weights.fill_detector import import_weights as import_weights

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "reports.drawing": "draw",
        "engine.checkpoint": "load_detector read_header save_detector weights_file",
        "engine.evaluate": "evaluate",
        "engine.prepare_inference": "for_inference",
        "engine.predict": "training_batch",
        "engine.predictor": "Predictor predict",
        "engine.tiling": "Tiling",
        "engine.train": "train",
        "errors": "ConfigError DetError PluginError",
        "hookspecs": "hookimpl",
        "load": "load_recipe",
        "model.detector": "Detector",
        "model.detector_config": "DetectorConfig",
        "offers": "RecipeEntry",
        "plugins": "plugin_manager register",
        "recipe": "Recipe",
        "specs": "FeatureSpec RegionSpec",
        "structures": "Batch Classes Detections LossTerm Targets",
        "weights.fill_detector": "import_weights",
    },
)
