"""Configuration objects to plain data (mappings, lists, numbers, text), for YAML, JSON and comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from det_core.settings import Component, fields_of


def unstructure(value: object, *, changed_only: bool = False) -> Any:
    """Plain data that `config.convert.structure` turns into an equal configuration; components include their `type`.

    changed_only: leave out settings that have their default.
    """
    if isinstance(value, tuple):
        return [unstructure(item, changed_only=changed_only) for item in value]
    if isinstance(value, Path):
        return str(value)
    if not attrs.has(type(value)):
        return value
    plain: dict[str, Any] = {"type": value.type} if isinstance(value, Component) else {}
    for field in fields_of(type(value)):
        item = getattr(value, field.name)
        if not changed_only or item != field.default:
            plain[field.name] = unstructure(item, changed_only=changed_only)
    return plain
