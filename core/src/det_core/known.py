"""What distributions of this project provide, installed or not: so that what is missing is named with its remedy.

The facts are in `known.json`, which `core/make_known.py` writes from the plugins' own hooks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from attrs import frozen


@frozen
class Distribution:
    """A plugin of this project.

    folder: its source, from the root of the repository. types: type names by slot. models: first words of its recipes'
    names. words: words in the names of recipes that it adds to the models of others.
    """

    name: str
    folder: str
    types: dict[str, list[str]]
    models: list[str]
    words: list[str]


@cache
def distributions() -> tuple[Distribution, ...]:
    """All of them, by name."""
    text = Path(__file__).with_name("known.json").read_text(encoding="utf8")
    return tuple(Distribution(name, **facts) for name, facts in json.loads(text).items())


def provider(slot: str, type_name: str) -> str:
    """The distribution that provides a type; "" if none is known."""
    return next((d.name for d in distributions() if type_name in d.types.get(slot, ())), "")


def recipes_like(name: str) -> Iterator[tuple[str, str]]:
    """Distributions that have recipes such as this one, each with what these are."""
    model = name.partition("/")[0]
    for known in distributions():
        if model in known.models:
            yield known.name, f"the recipes of {model}"
    for known in distributions():
        if found := [word for word in known.words if word in name.split("-")]:
            yield known.name, f"recipes with {' and '.join(found)}"


def install_hint(distribution: str) -> str:
    """The command that installs a distribution today; packages of this project install from its source tree."""
    folder = next((d.folder for d in distributions() if d.name == distribution), "")
    return f"pip install ./{folder} (from a checkout of det)" if folder else f"pip install {distribution}"


def install_hint_of_plugin(plugin: str) -> str:
    """The command that installs a plugin of this project by the name of its entry point; "" if it is none."""
    plain = plugin.replace("_", "-")
    found = (d.name for d in distributions() if plain in (d.name, d.name.removeprefix("det-plugin-")))
    return next((install_hint(name) for name in found), "")
