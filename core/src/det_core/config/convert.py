"""Plain data (YAML, JSON) to configuration objects, strictly.

A cattrs converter finds the class of every part, and `det_core.settings` checks every field, as for objects made in
Python. The error lists all problems of a file: where each is, what was found and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TypeVar

import attrs
import cattrs

from det_core.errors import ConfigError, PluginError
from det_core.plugins import plugin_manager
from det_core.settings import Component, conform_fields, fail, require_config, show, wrong_component

T = TypeVar("T")


def structure(value: object, cls: type[T], source: str = "") -> T:
    """Plain data as a `cls`; ConfigError with every problem found. `source` is the file name for the message."""
    try:
        return converter().structure(value, cls)
    except ConfigError as error:
        raise ConfigError(error.problems, source) from None


@cache
def converter() -> cattrs.Converter:
    """The converter of configuration classes, made once."""
    made = cattrs.Converter()
    made.register_structure_hook_func(attrs.has, _config)
    return made


def _config(value: object, cls: type) -> object:
    """A configuration of class `cls`, or of the subclass that `type` names. A configuration is returned unchanged."""
    if not isinstance(value, Mapping):
        return require_config(value, cls)
    if issubclass(cls, Component):
        cls, value = _concrete(cls, value)
    return cls(**conform_fields(cls, value, converter().structure))


def _allowed(cls: type[Component]) -> str:
    names = [n for n in plugin_manager().types(cls.slot) if issubclass(plugin_manager().component(cls.slot, n), cls)]
    return ", ".join(names) or "none is installed"


def _concrete(cls: type[Component], value: Mapping[str, object]) -> tuple[type, Mapping[str, object]]:
    """The class that `type` names, and the other fields. `type` is optional if `cls` itself has a type."""
    rest = {k: v for k, v in value.items() if k != "type"}
    name = value.get("type")
    own = cls.type if "type" in vars(cls) else ""
    if name is None:
        if own:
            return cls, rest
        raise fail(f"required key `type` is missing; allowed: {_allowed(cls)}")
    if not isinstance(name, str):
        raise ConfigError.at("type", f"found {show(name)}, expected a name; allowed: {_allowed(cls)}")
    if own and own == name:
        return cls, rest
    try:
        concrete = plugin_manager().component(cls.slot, name)
    except PluginError as error:
        other = plugin_manager().component_in_other_slot(cls.slot, name)
        raise wrong_component(other, cls) if other else ConfigError.at("type", str(error)) from None
    if not issubclass(concrete, cls):
        raise wrong_component(concrete, cls)
    return concrete, rest
