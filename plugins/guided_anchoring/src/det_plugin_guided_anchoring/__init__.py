"""Guided Anchoring for det."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_plugin_guided_anchoring.config import (
        GARetinaNetHeadConfig as GARetinaNetHeadConfig,
        GARPNConfig as GARPNConfig,
        GuidedAnchorsConfig as GuidedAnchorsConfig,
        RetinaNetGuidedAnchorsConfig as RetinaNetGuidedAnchorsConfig,
    )
    from det_plugin_guided_anchoring.retinanet import GARetinaNetHead as GARetinaNetHead
    from det_plugin_guided_anchoring.rpn import GARPN as GARPN

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "config": "GARPNConfig GARetinaNetHeadConfig GuidedAnchorsConfig RetinaNetGuidedAnchorsConfig",
        "retinanet": "GARetinaNetHead",
        "rpn": "GARPN",
    },
)
