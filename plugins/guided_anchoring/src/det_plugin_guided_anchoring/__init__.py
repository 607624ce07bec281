"""Guided Anchoring for det."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from det_plugin_guided_anchoring.config import (
        GARetinaNetHeadConfig,
        GARPNConfig,
        GuidedAnchorsConfig,
        RetinaNetGuidedAnchorsConfig,
    )
    from det_plugin_guided_anchoring.retinanet import GARetinaNetHead
    from det_plugin_guided_anchoring.rpn import GARPN

_HOMES = {
    "GARPN": "rpn",
    "GARPNConfig": "config",
    "GARetinaNetHead": "retinanet",
    "GARetinaNetHeadConfig": "config",
    "GuidedAnchorsConfig": "config",
    "RetinaNetGuidedAnchorsConfig": "config",
}

__all__ = [
    "GARPN",
    "GARPNConfig",
    "GARetinaNetHead",
    "GARetinaNetHeadConfig",
    "GuidedAnchorsConfig",
    "RetinaNetGuidedAnchorsConfig",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
