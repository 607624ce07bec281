"""Configuration files as text, of a bounded size: a device or a pipe without an end is not read on and on."""

from __future__ import annotations

from pathlib import Path

from det_core.errors import DetError, no_such

MAX_BYTES = 10_000_000


def read_text(path: Path, said: str = "", most: int = MAX_BYTES) -> str:
    """The text (UTF-8) of a configuration file.

    Args:
        path: the file.
        said: what comes before the path in messages.
        most: the number of bytes that it may have.

    Raises:
        DetError: if there is none, if it cannot be read, or if it is longer.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise DetError(f"{said}{path}: more than {most} bytes, which no configuration file has")
        return content.decode("utf8").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise DetError(said + no_such(path, "no such file")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DetError(f"{said}{path}: cannot be read: {error}") from None
