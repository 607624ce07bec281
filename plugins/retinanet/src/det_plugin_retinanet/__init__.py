"""RetinaNet for det."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_plugin_retinanet.config import RetinaNetHeadConfig as RetinaNetHeadConfig
    from det_plugin_retinanet.head import RetinaNetHead as RetinaNetHead

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "config": "RetinaNetHeadConfig",
        "head": "RetinaNetHead",
    },
)
