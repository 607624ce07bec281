"""A double head and a plain backbone for det. Public names are imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_plugin_double_head.backbone import PlainNet as PlainNet
    from det_plugin_double_head.config import (
        DoubleHeadConfig as DoubleHeadConfig,
    )
    from det_plugin_double_head.config import (
        PlainNetConfig as PlainNetConfig,
    )
    from det_plugin_double_head.roi_head import DoubleHead as DoubleHead

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "backbone": "PlainNet",
        "config": "DoubleHeadConfig PlainNetConfig",
        "roi_head": "DoubleHead",
    },
)
