"""Files that appear whole or not at all: written aside, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from det_core.errors import DetError

TEMPORARY = ".writing-"


class WriteError(DetError):
    """A file cannot be written: the disk is full, the folder is not writable."""

    @classmethod
    def of(cls, path: Path, error: Exception, kept: str) -> WriteError:
        """The error for a path, with what the system says and what is kept."""
        return cls(f"{path}: cannot be written ({cause(error)}); {kept}")


def cause(error: BaseException) -> str:
    """What the system said, if it said something: others raise errors of their own while they clean up after it."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError):
            return str(found.strerror or found)
        found = found.__context__
    return str(error).partition("\n")[0]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place at the end, on the disk; removed if there is an error.

    The folder is made if necessary. A link of this name is replaced, not followed.

    Raises:
        WriteError: in place of an error of the system, also one that safetensors reports.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise WriteError.of(path, error, "the earlier file is kept" if path.exists() else "no file is left") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write to a temporary file and rename it; WriteError if it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf8")


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
