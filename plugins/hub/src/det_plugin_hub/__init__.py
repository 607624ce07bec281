"""Checkpoints of det on the Hugging Face Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from det_plugin_hub.address import HubAddress as HubAddress
    from det_plugin_hub.hub_errors import HubError as HubError
    from det_plugin_hub.push import push as push

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "address": "HubAddress",
        "hub_errors": "HubError",
        "push": "push",
    },
)
