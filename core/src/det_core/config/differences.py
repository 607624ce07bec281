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


def differences(before: Any, after: Any, path: str = "", *, items: bool = False) -> Iterator[Difference]:
    """The values that differ between two sets of plain data, in the order of the first.

    Parts of another `type` and lists of another length are one difference each, and so are lists of values, unless
    `items`: then their items are compared one by one. 1, 1.0 and True differ.
    """
    if isinstance(before, dict) and isinstance(after, dict) and before.get("type") == after.get("type"):
        for key in {**before, **after}:
            inner = f"{path}.{key}" if path else key
            yield from differences(before.get(key, ABSENT), after.get(key, ABSENT), inner, items=items)
    elif _comparable(before, after) and (items or all(isinstance(item, dict) for item in (*before, *after))):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{path}[{index}]", items=items)
    elif not _same(before, after):
        yield Difference(path, before, after)


def _comparable(before: Any, after: Any) -> bool:
    return isinstance(before, list) and isinstance(after, list) and len(before) == len(after)


def _same(before: Any, after: Any) -> bool:
    """Whether values are equal and of one type, with all that is in them."""
    if _comparable(before, after):
        return all(map(_same, before, after))
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(_same(before[key], after[key]) for key in before)
    return type(before) is type(after) and bool(before == after)


def changes(base: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """The keys of `value` that a recipe file which extends `base` has to name.

    Lists are replaced whole, and so are parts of another `type`.
    """
    result: dict[str, Any] = {}
    for key, new in value.items():
        old = base.get(key, ABSENT)
        if _same(old, new):
            continue
        nested = isinstance(old, dict) and isinstance(new, dict) and old.get("type") == new.get("type")
        result[key] = changes(old, new) if nested else new
    return result
