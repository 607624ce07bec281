"""Plain data (YAML, JSON) to configuration objects, strictly.

A cattrs converter finds the class of every part; `det_core.settings` checks every field, as it does for objects made in
Python. All problems of a file are collected, and each says where it is, what was found and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TypeVar

import attrs
import cattrs

from det_core.errors import ConfigError, PluginError
from det_core.plugins import plugin_manager
from det_core.settings import Component, conform_fields, fail, misfit, part, show

T = TypeVar("T")


def structure(value: object, cls: type[T], source: str = "") -> T:
    """`value` (plain data) as a `cls`; ConfigError with every problem found, `source` naming the file."""
    try:
        return converter().structure(value, cls)
    except ConfigError as error:
        raise ConfigError(error.problems, source) from None


@cache
def converter() -> cattrs.Converter:
    """The one converter of configuration classes."""
    made = cattrs.Converter()
    made.register_structure_hook_func(attrs.has, _config)
    return made


def _config(value: object, cls: type) -> object:
    """A configuration of class `cls`, or of the class below it that `type` names; objects are taken as they are."""
    if not isinstance(value, Mapping):
        return part(value, cls)
    if issubclass(cls, Component):
        cls, value = _concrete(cls, value)
    return cls(**conform_fields(cls, value, converter().structure))


def _allowed(cls: type[Component]) -> str:
    names = [n for n in plugin_manager().types(cls.slot) if issubclass(plugin_manager().component(cls.slot, n), cls)]
    return ", ".join(names) or "none is installed"


def _concrete(cls: type[Component], value: Mapping[str, object]) -> tuple[type, Mapping[str, object]]:
    """The class that `type` names, and the other fields. `type` may be left out where only one class fits."""
    rest = {k: v for k, v in value.items() if k != "type"}
    name = value.get("type")
    own = cls.type if "type" in vars(cls) else ""
    if name is None:
        if own:
            return cls, rest
        raise fail(f"required key `type` is missing; allowed: {_allowed(cls)}")
    if not isinstance(name, str):
        raise ConfigError.at("type", f"found {show(name)}, expected a name; allowed: {_allowed(cls)}")
    if own == name:
        return cls, rest
    try:
        concrete = plugin_manager().component(cls.slot, name)
    except PluginError as error:
        elsewhere = plugin_manager().component_elsewhere(cls.slot, name)
        raise misfit(elsewhere, cls) if elsewhere else ConfigError.at("type", str(error)) from None
    if not issubclass(concrete, cls):
        raise misfit(concrete, cls)
    return concrete, rest
