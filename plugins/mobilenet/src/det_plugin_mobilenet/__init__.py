"""MobileNetV3 backbones for det."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_plugin_mobilenet.backbone import MobileNetV3 as MobileNetV3
    from det_plugin_mobilenet.config import MobileNetV3Config as MobileNetV3Config

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "backbone": "MobileNetV3",
        "config": "MobileNetV3Config",
    },
)
