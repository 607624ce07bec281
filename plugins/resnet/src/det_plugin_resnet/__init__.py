"""ResNet backbones for det."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_plugin_resnet.backbone import ResNet as ResNet
    from det_plugin_resnet.config import ResNetConfig as ResNetConfig

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "backbone": "ResNet",
        "config": "ResNetConfig",
    },
)
