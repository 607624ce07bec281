"""RPN, Faster R-CNN and Mask R-CNN for det."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from det_plugin_rcnn.box_head import FCBoxHead
    from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig
    from det_plugin_rcnn.mask_head import ConvMaskHead
    from det_plugin_rcnn.roi_head import RCNNHead
    from det_plugin_rcnn.rpn import RPN

_HOMES = {
    "RPN": "rpn",
    "RCNNHead": "roi_head",
    "FCBoxHead": "box_head",
    "ConvMaskHead": "mask_head",
    "RPNConfig": "config",
    "RCNNHeadConfig": "config",
    "FCBoxHeadConfig": "config",
    "ConvMaskHeadConfig": "config",
}

__all__ = [
    "RPN",
    "ConvMaskHead",
    "ConvMaskHeadConfig",
    "FCBoxHead",
    "FCBoxHeadConfig",
    "RCNNHead",
    "RCNNHeadConfig",
    "RPNConfig",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
