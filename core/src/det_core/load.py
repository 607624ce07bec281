"""Load a recipe from the zoo or from YAML with `extends`, and apply overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from det_core.config.convert import structure
from det_core.config.overrides import apply_overrides, merge
from det_core.config.schema import json_schema
from det_core.config.yaml_text import key_lines, read_yaml
from det_core.errors import ConfigError, PluginError
from det_core.known import install_hint
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.settings import evolve

RECIPE_SUFFIXES = (".yaml", ".yml", ".json")


def recipe_from_plain(plain: dict[str, Any], source: str = "") -> Recipe:
    """A recipe from the plain data of `Recipe.to_plain`.

    Raises:
        ConfigError: with every problem. `source` is the file name for the message.
    """
    return structure(plain, Recipe, source)


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = (), *, data: str | Path | None = None) -> Recipe:
    """Load a recipe by zoo name or from a YAML file, with the data in a folder, and apply `path=value` overrides.

    A YAML file may contain `extends: NAME` and only the changes to that recipe. The overrides change the recipe that
    `Recipe.with_data` returns, so that they may set what a data set in the format of the folder has.

    Raises:
        ConfigError: with every problem found; those of a file have its lines.
        PluginError: if no plugin provides the name, or a requirement is not installed, with what to install.
        DetError: if the file cannot be read.
    """
    text = str(name_or_path)
    source = text if not overrides else f"{text} with --set"
    if not isinstance(name_or_path, Path) and not text.endswith(RECIPE_SUFFIXES):
        return recipe_with(zoo_recipe(text).to_plain(), overrides, data, text, source)
    try:
        return recipe_with(_read(Path(text)), overrides, data, text, source)
    except ConfigError as error:
        raise error.with_lines(_lines_without(Path(text), overrides)) from None


def _lines_without(path: Path, overrides: Sequence[str]) -> dict[str, int]:
    """The lines of a recipe file's keys, without those whose values overrides have replaced."""
    replaced = tuple(override.partition("=")[0].strip() for override in overrides)
    lines = key_lines(path)
    return {key: line for key, line in lines.items() if not any(_is_within(key, other) for other in replaced)}


def _is_within(path: str, other: str) -> bool:
    return path == other or path.startswith((f"{other}.", f"{other}["))


def recipe_with(
    plain: dict[str, Any], overrides: Sequence[str], data: str | Path | None, file: str, source: str = ""
) -> Recipe:
    """The recipe of plain data, with the data in a folder if one is given, and then with overrides; ConfigError.

    file, source: what the plain data, and those with overrides, are from, for messages.
    """
    if data is not None:
        plain = recipe_from_plain(plain, file).with_data(data).to_plain()
    return recipe_from_plain(apply_overrides(plain, list(overrides)), source or file)


def base_of(path: Path) -> tuple[str, Recipe] | None:
    """The name of the recipe that a recipe file extends, and that recipe with the file's name; None if it extends none.

    Raises:
        ConfigError, DetError, PluginError: as `load_recipe`.
    """
    return _split(path)[0]


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe file, including all installed components, for completion and checks in editors.

    It requires no key, since a file that extends a recipe contains only the changes. Loading checks required keys.
    """
    schema = json_schema(Recipe, "det recipe", partial=True)
    properties = schema["$defs"]["Recipe"]["properties"]
    names = {"anyOf": [{"enum": list(plugin_manager().recipes())}, {"type": "string"}]}
    extends = {"description": "the recipe of a plugin that this file changes", **names}
    schema["$defs"]["Recipe"]["properties"] = {"extends": extends, **properties}
    return schema


def zoo_recipe(name: str) -> Recipe:
    """The recipe that a plugin provides under this name."""
    entry = plugin_manager().recipe_entry(name)
    missing = entry.missing()
    if missing:
        hints = "; ".join(f"{m}: {install_hint(m)}" for m in missing)
        raise PluginError(f"recipe {name!r} requires packages that are not installed: {hints}")
    return entry.make()


def _read(path: Path) -> dict[str, Any]:
    """The plain data of a recipe file, merged into the recipe that it extends."""
    base, plain = _split(path)
    if base is None:
        return {"name": path.stem, **plain}
    merged: dict[str, Any] = merge(base[1].to_plain(), plain)
    return merged


def _split(path: Path) -> tuple[tuple[str, Recipe] | None, dict[str, Any]]:
    """What `base_of` returns, and the changes to it."""
    plain = read_yaml(path)
    base_name = plain.pop("extends", None)
    if base_name is None:
        return None, plain
    if not isinstance(base_name, str):
        raise ConfigError.at("extends", f"found {base_name!r}, expected the name of one recipe", str(path))
    if base_name.endswith(RECIPE_SUFFIXES):
        raise ConfigError.at(
            "extends",
            f"found the file {base_name!r}, expected the name of a recipe that a plugin provides (`det-core recipes`)",
            str(path),
        )
    try:
        base = zoo_recipe(base_name)
    except PluginError as error:
        raise ConfigError.at("extends", str(error), str(path)) from None
    return (base_name, evolve(base, name=path.stem, published=None)), plain
