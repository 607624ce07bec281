"""The feature pyramid network for det."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from det_plugin_fpn.config import FPNConfig
    from det_plugin_fpn.neck import FPN

__all__ = ["FPN", "FPNConfig"]
__version__ = "0.1.0"

_HOMES = {"FPN": "neck", "FPNConfig": "config"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
