"""Group norm models, weight standardisation and deformable layers for det."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_plugin_gn_ws_dcn.config import (
        DeformConv2dConfig as DeformConv2dConfig,
        DeformRoIPoolConfig as DeformRoIPoolConfig,
        WSConv2dConfig as WSConv2dConfig,
    )

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "config": "DeformConv2dConfig DeformRoIPoolConfig WSConv2dConfig",
    },
)
