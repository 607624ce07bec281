"""What is known of timm's networks, without importing it where that is possible. Imports no torch."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from det_core.errors import ConfigError, nearest
from det_plugin_timm.model_table import Model, table

_measured: dict[str, Model] = {}  # networks that are not in the table


def model_of(name: str) -> Model:
    """What is known of a network.

    timm itself, and thereby torch, is imported only for a name that is not in the file, and only if timm may know more:
    it is of another version than the file, or this process uses it and may have registered networks.

    Raises:
        ConfigError: for a name that timm does not have, with the nearest ones, for a name of weights, and for a network
            that gives no maps of images of any size.
    """
    found = table().models.get(name) or _asked(name)
    if found is None:
        raise ConfigError.at("name", _unknown(name))
    if not found.maps:
        raise ConfigError.at(
            "name",
            f"{name!r} gives no feature maps of images of any size (timm's `forward_intermediates`); use another "
            "network, such as convnext_tiny",
        )
    return found


def _asked(name: str) -> Model | None:
    """What timm says of a network; it is measured once."""
    if name not in _measured and ("timm" in sys.modules or _installed() != table().timm):
        from det_plugin_timm.networks import measured

        if found := measured(name):
            _measured[name] = found
    return _measured.get(name)


def _installed() -> str:
    try:
        return version("timm")
    except PackageNotFoundError:
        return table().timm


def _unknown(name: str) -> str:
    network, dot, _ = name.partition(".")
    if dot and network in table().models:
        return f"{name!r} names weights of timm; set name: {network} and pretrained: timm:{name}"
    hint = nearest(name, table().models)
    return f"timm has no network {name!r}{hint or '; `timm.list_models()` lists them'}"
