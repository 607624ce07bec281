"""Images told apart by the content of their files, whatever their names are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from functools import cache

from det_core.contracts import DetectionDataset

CHUNK = 1 << 20


def content_digest(path: str) -> bytes:
    """16 bytes that differ for files of other content. Raises OSError.

    A file is read once in a process, unless it changes: both parts of a divided data set, and the search for images in
    two splits, ask for it.
    """
    found = os.stat(path)
    return _digest(path, found.st_size, found.st_mtime_ns)


@cache
def _digest(path: str, size: int, changed: int) -> bytes:
    """As `content_digest`, of a file of this size that was changed then."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.digest()


def content_share(path: str) -> float:
    """A number in [0, 1) that depends on nothing but the content of a file, evenly distributed over files."""
    return (int.from_bytes(content_digest(path)[:8], "big") >> 11) / 2**53  # 53 bits are exact in a float


def is_in_part(path: str, part: Sequence[float]) -> bool:
    """Whether an image file is in the part (low, high) of a data set; one that cannot be read is in every part."""
    low, high = part
    try:
        return low <= content_share(path) < high
    except OSError:
        return True


def shared_files(train: DetectionDataset, val: DetectionDataset) -> list[tuple[str, str]]:
    """Pairs of files of equal content, of a training and a validation image."""
    return equal_files((train.file(i) for i in range(len(train))), (val.file(i) for i in range(len(val))))


def equal_files(ours: Iterable[str], theirs: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of files, one of each side, of the same content. Only files of equal size are read.

    Files that cannot be read have no pair. A file of `theirs` is paired with the first of `ours`.
    """
    first, second = _by_size(ours), _by_size(theirs)
    pairs = []
    for size in sorted(first.keys() & second.keys()):
        known: dict[bytes, str] = {}
        for path in first[size]:
            known.setdefault(content_digest(path), path)
        pairs += [(known[digest], path) for path in second[size] if (digest := content_digest(path)) in known]
    return pairs


def _by_size(paths: Iterable[str]) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = {}
    for path in paths:
        try:
            groups.setdefault(os.stat(path).st_size, []).append(path)
        except OSError:
            continue
    return groups
