"""Hybrid Task Cascade for det."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from det_plugin_htc.config import HTCHeadConfig, SemanticBranchConfig
    from det_plugin_htc.roi_head import HTCHead
    from det_plugin_htc.semantic import SemanticBranch

_HOMES = {
    "HTCHead": "roi_head",
    "HTCHeadConfig": "config",
    "SemanticBranch": "semantic",
    "SemanticBranchConfig": "config",
}

__all__ = ["HTCHead", "HTCHeadConfig", "SemanticBranch", "SemanticBranchConfig"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
