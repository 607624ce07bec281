"""The recipe that is being made, as plain data, and where each of its changed values is from."""

from __future__ import annotations

import re
from typing import Any

from det_core.config.overrides import merge
from det_core.errors import ConfigError
from det_core.import_config.ledger import Node
from det_core.load import recipe_from_plain
from det_core.recipe import Recipe
from det_core.weights.recipe_values import MISSING, differs, look_up


class Target:
    """A recipe as plain data, to which values of a configuration are set."""

    def __init__(self, recipe: Recipe) -> None:
        self.base: dict[str, Any] = recipe.to_plain()
        self.plain: dict[str, Any] = recipe.to_plain()
        self.sources: dict[str, Node] = {}

    def get(self, path: str) -> Any:
        """The recipe's value at a path; None if it has no such setting."""
        found = look_up(self.plain, path)
        return None if found is MISSING else found

    def has(self, path: str) -> bool:
        return look_up(self.plain, path) is not MISSING

    def put(self, path: str, value: Any, source: Node) -> None:
        """Set a value, if it differs; a note on the source if the recipe's part has no such setting.

        source: the value's; it counts as used. A mapping without all settings is merged into the recipe's.
        """
        source.take()
        if not self.has(path):
            part, _, key = path.rpartition(".")
            kind = self.get(f"{part}.type")
            what = f"the recipe's {part} ({kind})" if kind else f"the recipe's {part}"
            source.refuse(f"is not taken over: {what} has no setting {key}")
            return
        old = look_up(self.plain, path)
        new = merge(old, value)
        if new != old and (new is None or old is None or differs(self.plain, path, new)):
            self._assign(path, new)
            self.sources[path] = source

    def copy(self, path: str, source: Node, default: Any = None) -> None:
        """Set the value of a source, or the default if it is missing or could not be read."""
        self.put(path, source.take(default), source)

    def copy_given(self, path: str, source: Node) -> None:
        """Set the value of a source, if there is one."""
        if source.given:
            self.copy(path, source)

    def copy_number(self, path: str, source: Node, default: float) -> None:
        """Set the number of a source; the default, with a note, if it is none."""
        self.put(path, source.number(default), source)

    def _assign(self, path: str, value: Any) -> None:
        *above, last = re.findall(r"[^.\[\]]+", path)
        node: Any = self.plain
        for step in above:
            node = node[int(step) if isinstance(node, list) else step]
        node[int(last) if isinstance(node, list) else last] = value

    def recipe(self) -> Recipe:
        """The recipe. Values that it does not allow are set back, with a note on each.

        Raises:
            ConfigError: if it is not valid, and no value that was set is the reason.
        """
        while True:
            try:
                return recipe_from_plain(self.plain)
            except ConfigError as error:
                wrong = {path: p.message for p in error.problems if (path := self._source_of(p.path))}
                if not wrong:
                    raise
                for path, message in wrong.items():
                    self.sources.pop(path).refuse(f"is not taken over: {path}: {message}")
                    self._assign(path, look_up(self.base, path))

    def _source_of(self, path: str) -> str:
        """The setting that was set at a path, above it or below it; "" if there is none."""
        near = [p for p in self.sources if path == p or path.startswith((f"{p}.", f"{p}["))]
        below = [p for p in self.sources if p.startswith((f"{path}.", f"{path}["))]
        return next(iter([*sorted(near, key=len, reverse=True), *below]), "")

    def fill(self) -> None:
        """Add the defaults of parts that were set by their type alone."""
        self.plain = recipe_from_plain(self.plain).to_plain()
