"""What the plugins of this project provide, installed or not, so that errors can say what to install.

The facts are in `known.json`, which `core/make_known.py` writes from the plugins' hooks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from attrs import field, frozen


@frozen
class Distribution:
    """A plugin of this project.

    folder: its source folder, relative to the repository. types: type names by slot. models: first words of its
    recipes' names. words: words in the names of the recipes that it adds to other plugins' models. weights: names of
    the published weights that its recipes start from. schemes: of the addresses of checkpoints that it fetches.
    commands: that it adds to `det-core`.
    """

    name: str
    folder: str
    types: dict[str, list[str]]
    models: list[str]
    words: list[str]
    weights: list[str]
    schemes: list[str] = field(factory=list)
    commands: list[str] = field(factory=list)


@cache
def distributions() -> tuple[Distribution, ...]:
    """All plugins of this project, in the order of their names."""
    text = Path(__file__).with_name("known.json").read_text(encoding="utf8")
    return tuple(Distribution(name, **facts) for name, facts in json.loads(text).items())


def provider(slot: str, type_name: str) -> str:
    """The distribution that provides a type, or ""."""
    return next((d.name for d in distributions() if type_name in d.types.get(slot, ())), "")


def scheme_provider(scheme: str) -> str:
    """The distribution that fetches checkpoints from `SCHEME://...`, or ""."""
    return next((d.name for d in distributions() if scheme in d.schemes), "")


def command_provider(name: str) -> str:
    """The distribution that adds a command to `det-core`, or ""."""
    return next((d.name for d in distributions() if name in d.commands), "")


def recipes_like(name: str) -> Iterator[tuple[str, str]]:
    """Distributions with recipes of a similar name, each with a description of these recipes."""
    model = name.partition("/")[0]
    for known in distributions():
        if model in known.models:
            yield known.name, f"the recipes of {model}"
    for known in distributions():
        if found := [word for word in known.words if word in name.split("-")]:
            yield known.name, f"recipes with {' and '.join(found)}"


def install_hint(distribution: str) -> str:
    """The command that installs a distribution: from the source tree if it belongs to this project."""
    folder = next((d.folder for d in distributions() if d.name == distribution), "")
    return f"pip install ./{folder} (from a checkout of det)" if folder else f"pip install {distribution}"


def install_hint_of_plugin(plugin: str) -> str:
    """The command that installs the plugin with this entry-point name, or "" if it is not a plugin of this project."""
    plain = plugin.replace("_", "-")
    found = (d.name for d in distributions() if plain in (d.name, d.name.removeprefix("det-plugin-")))
    return next((install_hint(name) for name in found), "")
