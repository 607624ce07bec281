"""Values in a parsed configuration of mmdetection, by path and type. Whatever is not of the type is None."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any


def at(value: Any, path: str) -> Any:
    """The value at a path such as `roi_head.bbox_head`; None if there is none."""
    for step in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(step)
    return value


def first_at(value: Any, *paths: str) -> Any:
    """The value at the first of the paths that has one."""
    return next((found for path in paths if (found := at(value, path)) is not None), None)


def type_of(value: Any) -> str:
    """The name of a part's class, without the modules of mmdet 3.x's long names; "" if it is not a part."""
    found = at(value, "type")
    return found.rpartition(".")[2] if isinstance(found, str) else ""


def parts(value: Any) -> list[Any]:
    """The items of a list or tuple; any other value but None is the only one."""
    if isinstance(value, (list, tuple)):
        return list(value)
    return [] if value is None else [value]


def number(value: Any) -> float | None:
    """A finite number, but not a truth value."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15
    return value if known and math.isfinite(value) else None


def whole(value: Any) -> int | None:
    """A whole number."""
    return value if isinstance(value, int) and number(value) is not None else None


def numbers(value: Any) -> tuple[float, ...] | None:
    """A list of numbers."""
    found = tuple(number(item) for item in value) if isinstance(value, (list, tuple)) and value else ()
    return tuple(item for item in found if item is not None) if found and None not in found else None


def find(value: Any, *types: str) -> Iterator[Mapping[str, Any]]:
    """All parts of these types anywhere in a value, in order."""
    if isinstance(value, Mapping):
        if type_of(value) in types:
            yield value
        for inner in value.values():
            yield from find(inner, *types)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from find(inner, *types)
