"""SSD for det."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from det_plugin_ssd.augment_config import IoUCropConfig, PhotometricDistortConfig, ZoomOutConfig
    from det_plugin_ssd.config import ExtraLevelConfig, SSDAnchorsConfig, SSDHeadConfig, SSDNeckConfig, VGGConfig
    from det_plugin_ssd.head import SSDHead

_HOMES = {
    "ExtraLevelConfig": "config",
    "IoUCropConfig": "augment_config",
    "PhotometricDistortConfig": "augment_config",
    "SSDAnchorsConfig": "config",
    "SSDHead": "head",
    "SSDHeadConfig": "config",
    "SSDNeckConfig": "config",
    "VGGConfig": "config",
    "ZoomOutConfig": "augment_config",
}

__all__ = [
    "ExtraLevelConfig",
    "IoUCropConfig",
    "PhotometricDistortConfig",
    "SSDAnchorsConfig",
    "SSDHead",
    "SSDHeadConfig",
    "SSDNeckConfig",
    "VGGConfig",
    "ZoomOutConfig",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
