"""Cascade R-CNN and Cascade Mask R-CNN for det."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_plugin_cascade.config import (
        CascadeHeadConfig as CascadeHeadConfig,
        CascadeStageConfig as CascadeStageConfig,
        StagedHeadConfig as StagedHeadConfig,
    )
    from det_plugin_cascade.roi_head import CascadeHead as CascadeHead

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "config": "CascadeHeadConfig CascadeStageConfig StagedHeadConfig",
        "roi_head": "CascadeHead",
    },
)
