"""Torch files that Python 2 wrote: their byte strings become text, which torch's restricted unpickler can read.

With `weights_only=True` torch refuses byte strings of more than 255 bytes, and those that are not UTF-8, such as the
values of numpy's scalars. Only the instructions of the pickles are looked at; nothing is unpickled here.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

PICKLES = 5  # in a file of torch's format before zip files: two numbers, system facts, the object, the storages' names
BYTE_STRINGS = ("BINSTRING", "SHORT_BINSTRING")


def without_byte_strings(path: Path) -> BytesIO | None:
    """The content of a torch file with text in place of byte strings; None if it has none, or is damaged.

    The text is UTF-8, or else latin-1, which keeps every byte.
    """
    with path.open("rb") as file:
        found = list(_byte_strings(file))
    if not found:
        return None
    content = path.read_bytes()
    parts, done = [], 0
    for start, end, text in found:
        parts += [content[done:start], text]
        done = end
    return BytesIO(b"".join([*parts, content[done:]]))


def _byte_strings(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Where each byte string starts and ends, and the instruction for the same text."""
    try:
        for _ in range(PICKLES):
            for instruction, value, start in pickletools.genops(file):
                if instruction.name in BYTE_STRINGS:
                    assert start is not None
                    assert isinstance(value, str)
                    yield start, file.tell(), _as_text(value)
    except Exception:  # a damaged pickle can fail in any way; torch's reader reports it
        return


def _as_text(value: str) -> bytes:
    """The instruction for a text. value: the bytes, decoded as latin-1."""
    try:
        text = value.encode("latin1").decode("utf8")
    except UnicodeDecodeError:
        text = value
    encoded = text.encode("utf8")
    return pickle.BINUNICODE + len(encoded).to_bytes(4, "little") + encoded
