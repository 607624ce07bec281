"""Hybrid Task Cascade for det."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_plugin_htc.config import (
        HTCHeadConfig as HTCHeadConfig,
        SemanticBranchConfig as SemanticBranchConfig,
    )
    from det_plugin_htc.roi_head import HTCHead as HTCHead
    from det_plugin_htc.semantic import SemanticBranch as SemanticBranch

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "config": "HTCHeadConfig SemanticBranchConfig",
        "roi_head": "HTCHead",
        "semantic": "SemanticBranch",
    },
)
