"""What differs between two recipes as plain data. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import frozen

ABSENT = object()


@frozen
class Difference:
    """A value that differs: its dotted path, and the values; `ABSENT` where there is none."""

    path: str
    before: Any
    after: Any


def differences(before: Any, after: Any, path: str = "") -> Iterator[Difference]:
    """The values that differ between two sets of plain data, in the order of the first.

    Parts of another `type` and lists of another length are one difference each.
    """
    if isinstance(before, dict) and isinstance(after, dict) and before.get("type") == after.get("type"):
        for key in {**before, **after}:
            yield from differences(before.get(key, ABSENT), after.get(key, ABSENT), f"{path}.{key}" if path else key)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after) and _nested(before, after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{path}[{index}]")
    elif type(before) is not type(after) or before != after:
        yield Difference(path, before, after)


def _nested(*lists: list[Any]) -> bool:
    """Whether lists contain parts, which are compared one by one; lists of numbers are shown whole."""
    return all(isinstance(item, dict) for items in lists for item in items)


def changes(base: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """The keys of `value` that a recipe file which extends `base` has to name.

    Lists are replaced whole, and so are parts of another `type`.
    """
    result: dict[str, Any] = {}
    for key, new in value.items():
        old = base.get(key, ABSENT)
        if isinstance(old, dict) and isinstance(new, dict) and old.get("type") == new.get("type"):
            inner = changes(old, new)
            if inner:
                result[key] = inner
        elif type(old) is not type(new) or old != new:
            result[key] = new
    return result
