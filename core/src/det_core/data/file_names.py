"""File names: stored in arrays that loader processes share, and looked up with one listing per folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

OUTSIDE = "is outside the image folder; correct it, or allow it with --allow-outside (`allow_outside: true`)"


@frozen(eq=False)
class Names:
    """Strings in one array of bytes; string i is the UTF-8 of text[offsets[i]:offsets[i + 1]].

    A name of a file system that is no UTF-8 keeps its bytes, as `os.fsdecode` gives it.
    """

    text: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, names: list[str]) -> Names:
        encoded = [name.encode("utf8", "surrogateescape") for name in names]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def __getitem__(self, index: int) -> str:
        return self.text[self.offsets[index] : self.offsets[index + 1]].tobytes().decode("utf8", "surrogateescape")


def name_problem(name: str) -> str:
    """Why no file can have this name, or ""."""
    if "\0" in name:
        return "has a NUL character, which no file name has"
    try:
        name.encode()
    except UnicodeEncodeError:  # a surrogate without its other half, as `\ud800` in JSON
        return "is not Unicode text: it has half a surrogate pair"
    return ""


def is_outside(folder: Path, name: str) -> bool:
    """Whether a name, relative to a folder, is of a file outside of it; a symbolic link in the folder is not."""
    if ".." not in name and not os.path.isabs(name):
        return False
    root, path = os.path.abspath(folder), os.path.abspath(os.path.join(folder, name))
    if not _is_below(root, path):
        return True
    # `link/../x` is beside the target of the link, where no text shows it.
    return ".." in Path(name).parts and not _is_below(os.path.realpath(folder), os.path.realpath(folder / name))


def _is_below(root: str, path: str) -> bool:
    return os.path.commonpath([root, path]) == root


class Folder:
    """Whether files exist below a folder; lists each folder only once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[str, set[str]] = {}

    def __contains__(self, name: str) -> bool:
        folder, file = os.path.split(os.path.join(self.root, name))  # an absolute name as where the file is opened
        if folder not in self._listings:
            self._listings[folder] = self._list(folder)
        return file in self._listings[folder]

    @staticmethod
    def _list(folder: str) -> set[str]:
        try:
            return set(os.listdir(folder))
        except OSError:
            return set()
