"""Group norm models, weight standardisation and deformable layers for det."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from det_plugin_gn_ws_dcn.config import DeformConv2dConfig, DeformRoIPoolConfig, WSConv2dConfig

_HOMES = {"DeformConv2dConfig": "config", "DeformRoIPoolConfig": "config", "WSConv2dConfig": "config"}

__all__ = ["DeformConv2dConfig", "DeformRoIPoolConfig", "WSConv2dConfig"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
