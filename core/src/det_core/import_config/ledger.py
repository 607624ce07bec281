"""The values of a configuration, with a record of which were used, so that none is lost without notice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from det_core.weights.mmdet_values import number, type_of
from det_core.weights.python_values import Place, PlacedDict, Unread

SHOWN = 60  # characters of a value in a note
MISSING = object()
NO_COUNTERPART = "has no counterpart here"
Path = tuple[Any, ...]


@frozen
class Note:
    """What was not taken over: its place, its key, and why."""

    place: Place
    key: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.key}: {self.why}"


class Ledger:
    """Which values of a configuration were used, and notes on those that were not."""

    def __init__(self, config: PlacedDict, file: str) -> None:
        self.config = config
        self.used: set[Path] = set()
        self.notes: list[Note] = []
        self.root = Node(self, config, (), Place(file, 0))

    def note(self, place: Place, key: str, why: str) -> None:
        """Add a note, once."""
        note = Note(place, key, why)
        if note not in self.notes:
            self.notes.append(note)

    def list_unused(self, node: Node) -> None:
        """Add a note on each value below a node that was not used; a part of which nothing was used is one note."""
        if not node.given or node.path in self.used or isinstance(node.value, Unread) or node.value in (None, {}, []):
            return
        below = any(path[: len(node.path)] == node.path for path in self.used)
        if not below or not isinstance(node.value, (dict, list, tuple)):
            self.note(node.place, node.name, f"{shown(node.value)} {NO_COUNTERPART}")
            return
        for child in node.children():
            self.list_unused(child)


@frozen(eq=False)
class Node:
    """A value in the configuration. `value` is MISSING if there is none; `place` is then that of the part above."""

    ledger: Ledger
    value: Any
    path: Path
    place: Place

    @property
    def given(self) -> bool:
        return self.value is not MISSING

    @property
    def name(self) -> str:
        """The dotted path."""
        text = ""
        for step in self.path:
            text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
        return text

    @property
    def type(self) -> str:
        """The name of the part's class; the key counts as used."""
        if self.given:
            self.ledger.used.add((*self.path, "type"))
        return type_of(self.value)

    def at(self, path: str) -> Node:
        """The value at a dotted path below this one."""
        node = self
        for step in path.split("."):
            node = node.child(step)
        return node

    def first(self, *paths: str) -> Node:
        """The value at the first of the paths that has one; MISSING if none has."""
        return next((node for path in paths if (node := self.at(path)).given), self.at(paths[0]))

    def child(self, step: Any) -> Node:
        """The value of a key of this one."""
        found = self.value.get(step, MISSING) if isinstance(self.value, Mapping) else MISSING
        place = self.place
        if found is not MISSING and isinstance(self.value, PlacedDict):
            place = self.value.places.get(step, place)
        return Node(self.ledger, found, (*self.path, step), place)

    def children(self) -> list[Node]:
        """The values of a dict, or the items of a list."""
        if isinstance(self.value, Mapping):
            return [self.child(key) for key in self.value]
        return self.items()

    def items(self) -> list[Node]:
        """The items of a list; any other value but None is the only one."""
        if isinstance(self.value, (list, tuple)):
            return [
                Node(self.ledger, item, (*self.path, number), _place(item, self.place))
                for number, item in enumerate(self.value)
            ]
        return [self] if self.given and self.value is not None else []

    def take(self, default: Any = None) -> Any:
        """The value, which counts as used with all that is in it; `default` if it is missing or could not be read."""
        if self.given:
            self.ledger.used.add(self.path)
        return default if not self.given or isinstance(self.value, Unread) else self.value

    def ignore(self, *paths: str) -> None:
        """Count values below this one as used: they have no effect on what is translated."""
        for path in paths:
            self.at(path).take()

    def number(self, default: float) -> float:
        """A finite number, which counts as used; the default, with a note, for any other value."""
        found = number(self.take(default))
        if found is None:
            self.refuse(f"{shown(self.value)} is not a number; {default} is used")
            return default
        return float(found)

    def expect(self, path: str, *allowed: Any, why: str = "") -> None:
        """Use the value at a path, with a note if it is not one of those that have the same meaning here."""
        node = self.at(path)
        value = node.take()
        if node.given and value is not None and not any(_equal(value, other) for other in allowed):
            node.refuse(why or f"{shown(value)} {NO_COUNTERPART}, only {' or '.join(map(shown, allowed))}")

    def refuse(self, why: str) -> None:
        """Add a note on this value, which counts as used with all that is in it."""
        self.ledger.used.add(self.path)
        if self.given and not isinstance(self.value, Unread):  # what could not be read is listed as such
            self.note(why)

    def note(self, why: str) -> None:
        """Add a note on this value."""
        self.ledger.note(self.place, self.name, why)

    def finish(self) -> None:
        """Add a note on each value of this part that was not used."""
        self.ledger.list_unused(self)
        self.take()

    def walk(self) -> Iterator[Node]:
        """This value, and all that are in it."""
        yield self
        for child in self.children() if isinstance(self.value, (dict, list, tuple)) else ():
            yield from child.walk()


def _place(item: Any, default: Place) -> Place:
    """The place of an item of a list: that of its first key."""
    return next(iter(item.places.values()), default) if isinstance(item, PlacedDict) else default


def _equal(value: Any, other: Any) -> bool:
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        return list(value) == list(other)
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def shown(value: Any) -> str:
    """A value in a note: a part by its type, anything else shortened."""
    if isinstance(value, Mapping) and type_of(value):
        return type_of(value)
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."
