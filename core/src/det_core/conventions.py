"""The conventions of a source of weights: the settings in which the same model differs between projects.

A setting declares them, `setting(..., default="edge", conventions={"mmdet1": "pixel"})`: weights of mmdet 0.x and 1.x
require "pixel", and those of every source that is not named the default. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import attrs
from attrs import frozen

from det_core.settings import evolve, fields_of

T = TypeVar("T")
ANY = "<any>"  # of a source whose own models differ


SPOKEN = {"mmdet": "mmdet 2.x and 3.x", "mmdet1": "mmdet 0.x and 1.x", "detectron": "Detectron"}


def spoken(source: str) -> str:
    """A source of weights as it is called in a sentence."""
    return SPOKEN.get(source, source)


def of_detectron(value: Any) -> dict[str, Any]:
    """The same value for Detectron and for maskrcnn-benchmark, which took over its conventions."""
    return {"detectron": value, "maskrcnn-benchmark": value}


@frozen
class Difference:
    """A setting that differs from a source's conventions: its path, its value, and the source's."""

    path: str
    found: Any
    expected: Any

    def __str__(self) -> str:
        return f"{self.path}: found {self.found!r}, expected {self.expected!r}"


def differences(config: Any, source: str, path: str = "") -> list[Difference]:
    """The settings of a configuration, and of all in it, that differ from the conventions of `source`."""
    found = []
    for field in fields_of(type(config)):
        value, where = getattr(config, field.name), f"{path}.{field.name}" if path else field.name
        if "conventions" in field.metadata:
            expected = field.metadata["conventions"].get(source, field.default)
            if expected != ANY and value != expected:
                found.append(Difference(where, value, expected))
        for name, part in _configurations(value, where):
            found += differences(part, source, name)
    return found


def under(config: T, source: str) -> T:
    """The configuration with the conventions of `source`, in itself and in every configuration in it."""
    changes: dict[str, Any] = {}
    for field in fields_of(type(config)):
        value = getattr(config, field.name)
        if "conventions" in field.metadata:
            expected = field.metadata["conventions"].get(source, field.default)
            value = value if expected == ANY else expected
        elif isinstance(value, tuple):
            value = tuple(under(item, source) if attrs.has(type(item)) else item for item in value)
        elif attrs.has(type(value)):
            value = under(value, source)
        changes[field.name] = value
    return evolve(config, **changes)


def _configurations(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The configurations in the value of a setting, with their paths."""
    if isinstance(value, tuple):
        for number, item in enumerate(value):
            if attrs.has(type(item)):
                yield f"{path}[{number}]", item
    elif attrs.has(type(value)):
        yield path, value
