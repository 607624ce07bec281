"""SSD for det."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_plugin_ssd.augment_config import (
        IoUCropConfig as IoUCropConfig,
        PhotometricDistortConfig as PhotometricDistortConfig,
        ZoomOutConfig as ZoomOutConfig,
    )
    from det_plugin_ssd.config import (
        ExtraLevelConfig as ExtraLevelConfig,
        SSDAnchorsConfig as SSDAnchorsConfig,
        SSDHeadConfig as SSDHeadConfig,
        SSDNeckConfig as SSDNeckConfig,
        VGGConfig as VGGConfig,
    )
    from det_plugin_ssd.head import SSDHead as SSDHead

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "augment_config": "IoUCropConfig PhotometricDistortConfig ZoomOutConfig",
        "config": "ExtraLevelConfig SSDAnchorsConfig SSDHeadConfig SSDNeckConfig VGGConfig",
        "head": "SSDHead",
    },
)
