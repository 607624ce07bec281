"""A recipe made of another project's configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from det_core.config.yaml_text import to_yaml
from det_core.import_config.ledger import Note
from det_core.recipe import Recipe


@frozen(kw_only=True)
class ImportedConfig:
    """A recipe made of a configuration.

    project: whose configuration it is. base: the name of the recipe that it extends. changes: what it says besides.
    recipe: both together. notes: what was not taken over, or in another way. files: all files that were read, bases
    first.
    """

    project: str
    base: str
    changes: Mapping[str, Any]
    recipe: Recipe
    notes: tuple[Note, ...]
    files: tuple[Path, ...]

    def to_yaml(self) -> str:
        """The recipe file, with the notes as comments at its head."""
        head = [f"# From {self.files[-1].name} of {self.project}, by det-core import-config."]
        if self.notes:
            head.append("# Not taken over, or in another way:")
            head += [f"# - {line}" for note in self.notes for line in str(note).splitlines()]
        return "\n".join(head) + "\n" + to_yaml({"extends": self.base, **self.changes})


def in_order(notes: Iterable[Note], files: Sequence[Path]) -> tuple[Note, ...]:
    """Notes by file, the configuration itself first, and by line.

    files: all that were read, bases first.
    """
    ranks = {str(path): number for number, path in enumerate(reversed(files))}
    return tuple(sorted(notes, key=lambda note: (ranks.get(note.place.file, len(ranks)), note.place.line)))
