"""Configuration objects to plain data (mappings, lists, numbers, text), for YAML, JSON and comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from det_core.settings import Component, fields_of


def unstructure(value: object) -> Any:
    """Plain data that `config.convert.structure` turns into an equal configuration; components include their `type`."""
    if isinstance(value, tuple):
        return [unstructure(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if not attrs.has(type(value)):
        return value
    plain: dict[str, Any] = {"type": value.type} if isinstance(value, Component) else {}
    for field in fields_of(type(value)):
        plain[field.name] = unstructure(getattr(value, field.name))
    return plain
