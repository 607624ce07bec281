"""RetinaNet for det."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from det_plugin_retinanet.config import RetinaNetHeadConfig
    from det_plugin_retinanet.head import RetinaNetHead

_HOMES = {"RetinaNetHead": "head", "RetinaNetHeadConfig": "config"}

__all__ = ["RetinaNetHead", "RetinaNetHeadConfig"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
