"""Cascade R-CNN and Cascade Mask R-CNN for det."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from det_plugin_cascade.config import CascadeHeadConfig, CascadeStageConfig, StagedHeadConfig
    from det_plugin_cascade.roi_head import CascadeHead

_HOMES = {
    "CascadeHead": "roi_head",
    "CascadeHeadConfig": "config",
    "CascadeStageConfig": "config",
    "StagedHeadConfig": "config",
}

__all__ = ["CascadeHead", "CascadeHeadConfig", "CascadeStageConfig", "StagedHeadConfig"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
