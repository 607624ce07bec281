"""Write `det_core/known.json`: what the plugins of this repository provide, read from their own hooks.

    python core/make_known.py

All plugins must be installed. `det_core.known` says what each entry means.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from det_core.plugins import PluginManager, PluginState, plugin_manager
from det_core.settings import Component
from det_core.slots import SLOTS

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "core/src/det_core/known.json"


def known(manager: PluginManager) -> dict[str, Any]:
    """The content of the file, by distribution."""
    owners = _owners(manager)
    found: dict[str, Any] = {}
    for project in sorted(ROOT.glob("plugins/*/pyproject.toml")):
        name = tomllib.loads(project.read_text(encoding="utf8"))["project"]["name"]
        state = next(p for p in manager.plugins if p.distribution == name)
        slots = sorted(set(state.provides) & set(SLOTS))
        found[name] = {
            "folder": project.parent.relative_to(ROOT).as_posix(),
            "types": {slot: sorted(state.provides[slot]) for slot in slots},
            "models": sorted(model for model, owner in owners.items() if owner == name),
            "words": sorted(_own_words(manager, state, owners)),
            "weights": sorted(_weights(manager, name)),
        }
        if sources := state.provides.get("checkpoint source"):
            found[name]["schemes"] = sorted(source.removesuffix("://") for source in sources)
        if commands := state.provides.get("command"):
            found[name]["commands"] = sorted(commands)
    return found


def _owners(manager: PluginManager) -> dict[str, str]:
    """Model (the first word of a recipe's name) to distribution: of several, the one that provides its last head."""
    providers: dict[str, set[str]] = {}
    for name in manager.recipes():
        providers.setdefault(_model(name), set()).add(manager.recipe_owner(name).distribution)
    return {
        model: min(several, key=lambda d: d != _provider_of_head(manager, model))
        for model, several in providers.items()
    }


def _provider_of_head(manager: PluginManager, model: str) -> str:
    entry = next(e for name, e in manager.recipes().items() if _model(name) == model)
    detector = entry.make().detector
    head = detector.roi_head or detector.dense_head
    assert isinstance(head, Component)
    state = manager.provider(type(head))
    return state.distribution if state else ""


def _own_words(manager: PluginManager, state: PluginState, owners: dict[str, str]) -> set[str]:
    """Words in the names of a plugin's recipes for models of others, which these others' recipes do not have.

    Recipes for weights of other toolboxes do not count: the names of these are theirs.
    """
    own: set[str] = set()
    others: set[str] = set()
    for name, entry in manager.recipes().items():
        if owners[_model(name)] != state.distribution and entry.weights_of in ("", "torchvision"):
            words = {word for word in name.partition("/")[2].split("-") if word.isalpha()}
            (own if manager.recipe_owner(name) is state else others).update(words)
    return own - others


def _weights(manager: PluginManager, distribution: str) -> set[str]:
    """The published weights of a distribution's recipes."""
    own = (e for name, e in manager.recipes().items() if manager.recipe_owner(name).distribution == distribution)
    return {entry.published_weights for entry in own} - {""}


def _model(recipe: str) -> str:
    return recipe.partition("/")[0]


if __name__ == "__main__":
    lines = [f"  {json.dumps(name)}: {json.dumps(facts)}" for name, facts in known(plugin_manager()).items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf8")
