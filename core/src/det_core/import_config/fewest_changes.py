"""The recipe with the fewest differences, and changes without values that are defaults."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from det_core.config.differences import changes
from det_core.config.overrides import merge
from det_core.errors import ConfigError
from det_core.load import recipe_from_plain
from det_core.recipe import Recipe


def distance(base: Recipe, recipe: Recipe) -> int:
    """The number of settings that a file which extends `base` has to name."""
    return _count(changes(base.to_plain(), recipe.to_plain()))


def _count(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_count, value.values()))
    return sum(map(_count, value)) if isinstance(value, list) and any(isinstance(v, Mapping) for v in value) else 1


def fewest_changes(base: Recipe, recipe: Recipe) -> dict[str, Any]:
    """What a file which extends `base` has to say for a recipe, without settings that have their defaults.

    A part of another type, and a list of parts, is written whole; of these, defaults are left out.
    """
    plain, start = {**recipe.to_plain(), "name": base.name}, base.to_plain()
    found = copy.deepcopy(changes(start, plain))
    expected = recipe_from_plain(plain).to_plain()
    for part in list(_parts(found)):
        whole = dict(part)
        for key in [key for key in whole if key != "type"]:
            value = part.pop(key)
            if not _gives(start, found, expected):
                part[key] = value
        kept = {key: value for key, value in whole.items() if key in part}  # in the order of the part
        part.clear()
        part.update(kept)
    return found


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """All parts with a type, the inner ones first."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _parts(inner)
        if "type" in value:
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from _parts(item)


def _gives(base: dict[str, Any], found: dict[str, Any], expected: dict[str, Any]) -> bool:
    try:
        return recipe_from_plain(merge(base, found)).to_plain() == expected
    except ConfigError:
        return False
