"""The feature pyramid network for det."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_plugin_fpn.config import FPNConfig as FPNConfig
    from det_plugin_fpn.neck import FPN as FPN

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "config": "FPNConfig",
        "neck": "FPN",
    },
)
