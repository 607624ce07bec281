"""A double head and a plain backbone for det. Public names are imported when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from det_plugin_double_head.backbone import PlainNet
    from det_plugin_double_head.config import DoubleHeadConfig, PlainNetConfig
    from det_plugin_double_head.roi_head import DoubleHead

_HOME = {
    "DoubleHead": "det_plugin_double_head.roi_head",
    "DoubleHeadConfig": "det_plugin_double_head.config",
    "PlainNet": "det_plugin_double_head.backbone",
    "PlainNetConfig": "det_plugin_double_head.config",
}

__all__ = ["DoubleHead", "DoubleHeadConfig", "PlainNet", "PlainNetConfig"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
