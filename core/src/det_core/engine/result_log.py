"""Results of predictions as JSON lines, appended as they are found.

A process that is killed leaves the lines that it wrote, the last perhaps torn. So these files, to which is only
appended, are not written aside and renamed as others are: a reader leaves out what does not end in a newline, and a
process that goes on cuts it off before it appends. Each line has

    file        the path as it was given
    image_id    if the image is from a COCO file
    model       recipe, step and digest of the weights
    height, width   of the image, in pixels
    detections  a list of {box, score, label, class, mask}: box x1, y1, x2, y2 in pixels, mask (if the model has masks)
                COCO's compressed run-length code {size: [height, width], counts}
    picture     if one was drawn, its path below the folder
    error       in place of all but `file`, `image_id` and `model`: why the image cannot be read
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakSet

from det_core.engine.share import Share
from det_core.errors import DetError
from det_core.file_lock import take_lock
from det_core.safe_write import WriteError, sync

Record = dict[str, Any]

STEM = "predictions"
BLOCK = 1 << 20  # bytes that are searched for a newline at once
SECONDS_BETWEEN_SYNCS = 2.0  # a kill loses no line; a machine that loses its power loses those since the last sync
KEPT = "what was found before is kept; --resume goes on from there"


def log_file(folder: Path, share: Share) -> Path:
    """The file of a share of the results in a folder."""
    part = "" if share.count == 1 else f"-{share.index + 1}-of-{share.count}"
    return folder / f"{STEM}{part}.jsonl"


def log_files(folder: Path) -> list[Path]:
    """All files of results in a folder."""
    return sorted(p for p in folder.glob(f"{STEM}*.jsonl") if p.is_file())


def records_of(file: Path) -> Iterator[Record]:
    """The records of a file of results, in order. A torn last line is left out.

    Raises:
        DetError: for any other line that is no record, with its number.
    """
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            record = _record(line)
            if record is None:
                raise DetError(
                    f"{file}:{number}: not a record of predictions; remove the line, and make its images' results anew "
                    "with --resume"
                )
            yield record


def _record(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("file"), str) else None


class ResultLog:
    """The file of one share, open for this process alone.

    Raises:
        DetError: if another process writes to it.
        WriteError: if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
            self._file: BinaryIO = os.fdopen(os.open(path, flags, 0o644), "r+b", buffering=0)
        except OSError as error:
            raise WriteError.of(path, error, "no result is lost") from error
        if not take_lock(self._file.fileno()):
            self._file.close()
            raise DetError(f"{path} is in use by another process; wait for it, end it, or choose another --out")
        _open_logs.add(self)
        self._synced = time.monotonic()
        self._cut_torn_line()
        sync(path.parent)

    def append(self, records: Sequence[Record]) -> None:
        """Write records: all of them, or if the disk is full none; WriteError then."""
        text = "".join(json.dumps(record) + "\n" for record in records).encode()
        before = os.fstat(self._file.fileno()).st_size
        try:
            rest = memoryview(text)
            while rest:
                rest = rest[self._file.write(rest) :]
            if time.monotonic() - self._synced > SECONDS_BETWEEN_SYNCS:
                self._sync()
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(before)
            raise WriteError.of(self.path, error, KEPT) from error

    def close(self) -> None:
        """Wait until all is on the disk, and close the file, which releases its lock."""
        try:
            self._sync()
        except OSError as error:
            raise WriteError.of(self.path, error, KEPT) from error
        finally:
            self._file.close()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def give_up(self) -> None:
        """Close the file without writing to it: in a process that only inherited it."""
        self._file.close()

    def _cut_torn_line(self) -> None:
        """Truncate the file after its last newline, which is looked for from the end."""
        end = os.fstat(self._file.fileno()).st_size
        while end:
            start = max(end - BLOCK, 0)
            self._file.seek(start)
            if newline := self._file.read(end - start).rfind(b"\n") + 1:
                self._file.truncate(start + newline)
                return
            end = start
        self._file.truncate(0)


_open_logs: WeakSet[ResultLog] = WeakSet()


def _close_in_child() -> None:
    """A loader process that outlives a killed process must not keep its lock."""
    for opened in list(_open_logs):
        opened.give_up()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
