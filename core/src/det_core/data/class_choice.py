"""The setting `classes` of a data set: which classes, in which order, under which names. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from det_core.errors import first_few, nearest

SHOWN = 20
CLASSES_DOC = (
    "classes in the order of their labels, each a NAME, or OLD=NEW to rename it (several OLD of one NEW are merged); "
    "objects of other classes are left out and counted; null: all"
)


@frozen
class ClassEntry:
    """A class of the data set, and its name in the result."""

    old: str
    new: str


def class_entries(texts: Sequence[str]) -> tuple[ClassEntry, ...]:
    """The entries of the setting. A name with `=` in it cannot be chosen."""
    parts = [text.partition("=") for text in texts]
    return tuple(ClassEntry(old.strip(), new.strip() if equals else old.strip()) for old, equals, new in parts)


def entries_problem(texts: Sequence[str]) -> str:
    """What is wrong with the texts of the setting, or ""."""
    entries = class_entries(texts)
    if any(not entry.old or not entry.new for entry in entries):
        return "a name is empty; expected NAME or OLD=NEW"
    seen: set[str] = set()
    for entry in entries:
        if entry.old in seen:
            return f"class {entry.old!r} is named twice"
        seen.add(entry.old)
    return ""


def unknown_names(entries: Sequence[ClassEntry], known: Sequence[str]) -> str:
    """Which of the chosen classes do not exist, with the nearest names, or ""."""
    for entry in entries:
        if entry.old not in known:
            available = first_few(sorted(known), SHOWN) or "none"
            return f"`classes`: no class {entry.old!r}{nearest(entry.old, known)}; the data set has: {available}"
    return ""
