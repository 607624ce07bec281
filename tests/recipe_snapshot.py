"""The snapshot of all recipes, `recipes.json.xz`: every value of each, and its entry in the zoo.

`test_recipe_snapshot.py` compares the recipes with it. Where a value is changed on purpose,

    python tests/recipe_snapshot.py

prints what has changed and writes the snapshot again.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import attrs

from det_core.config.differences import ABSENT, differences as config_differences
from det_core.plugins import plugin_manager

FILE = Path(__file__).with_name("recipes.json.xz")


def current_recipes() -> dict[str, Any]:
    """All recipes by name, as plain data that JSON returns unchanged."""
    manager = plugin_manager()
    recipes = {
        name: {
            "recipe": entry.make().to_plain(),
            "requires": entry.requires,
            "default": entry.default,
            "demo": entry.demo,
            "summary": entry.summary,
            "published": None if entry.published is None else attrs.asdict(entry.published),
            "owner": manager.recipe_owner(name).name,
        }
        for name, entry in manager.recipes().items()
    }
    return json.loads(json.dumps(recipes))


def read_snapshot(file: Path = FILE) -> dict[str, Any]:
    return json.loads(lzma.decompress(file.read_bytes()))


def write_snapshot(recipes: dict[str, Any], file: Path = FILE) -> None:
    text = json.dumps(recipes, sort_keys=True, indent=0)
    file.write_bytes(lzma.compress(text.encode("utf8"), preset=9 | lzma.PRESET_EXTREME))


def differences(before: Any, now: Any) -> list[str]:
    """One line per value that differs: the recipe's name, the dotted path, both values."""
    lines = [f"{name}: no longer exists" for name in before if name not in now]
    lines += [f"{name}: is new" for name in now if name not in before]
    for name in before:
        if name in now:
            found = config_differences(before[name], now[name], items=True)
            lines += [f"{name}: {d.path}: {_shown(d.before)} became {_shown(d.after)}" for d in found]
    return lines


def _shown(value: Any) -> str:
    return "nothing" if value is ABSENT else json.dumps(value)


def shortened(lines: list[str], limit: int = 20) -> str:
    """The first lines, and how many more there are."""
    more = [f"... and {len(lines) - limit} more"] if len(lines) > limit else []
    return "\n".join([*lines[:limit], *more])


if __name__ == "__main__":
    recipes = current_recipes()
    print("\n".join(differences(read_snapshot(), recipes)) or "nothing has changed")
    write_snapshot(recipes)
