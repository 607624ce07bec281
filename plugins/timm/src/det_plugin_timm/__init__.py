"""timm's networks as backbones for det."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_plugin_timm.backbone import TimmBackbone as TimmBackbone
    from det_plugin_timm.config import (
        LevelConvsConfig as LevelConvsConfig,
        SizedCropConfig as SizedCropConfig,
        TimmConfig as TimmConfig,
    )
    from det_plugin_timm.initial_weights import preprocess_of as preprocess_of

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "backbone": "TimmBackbone",
        "config": "LevelConvsConfig SizedCropConfig TimmConfig",
        "initial_weights": "preprocess_of",
    },
)
