"""RPN, Faster R-CNN and Mask R-CNN for det."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_plugin_rcnn.box_head import FCBoxHead as FCBoxHead
    from det_plugin_rcnn.config import (
        ConvMaskHeadConfig as ConvMaskHeadConfig,
        FCBoxHeadConfig as FCBoxHeadConfig,
        RCNNHeadConfig as RCNNHeadConfig,
        RPNConfig as RPNConfig,
    )
    from det_plugin_rcnn.mask_head import ConvMaskHead as ConvMaskHead
    from det_plugin_rcnn.roi_head import RCNNHead as RCNNHead
    from det_plugin_rcnn.rpn import RPN as RPN

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "box_head": "FCBoxHead",
        "config": "ConvMaskHeadConfig FCBoxHeadConfig RCNNHeadConfig RPNConfig",
        "mask_head": "ConvMaskHead",
        "roi_head": "RCNNHead",
        "rpn": "RPN",
    },
)
