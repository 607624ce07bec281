"""The lock of a run folder: only one process at a time writes into it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from det_core.engine.distributed import World, gather
from det_core.errors import DetError
from det_core.file_lock import take_lock
from det_core.safe_write import TEMPORARY

LOCK = ".lock"
TRIES_TO_READ = 40  # in the twentieth of a second each, who holds a lock


@contextmanager
def locked(run: Path, world: World) -> Iterator[None]:
    """Lock a run folder, which is created if necessary. The system releases the lock when the main rank ends.

    What a killed process was writing is removed. So is, at the end, a folder with nothing but the lock.

    Raises:
        DetError: on every rank, if another process holds the lock (with its id and host) or it cannot be written.
    """
    descriptor, problem = _opened(run) if world.main else (None, "")
    try:
        problem = gather(problem, world, "the lock of the run folder")[0]
        if problem:
            raise DetError(problem)
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                if not problem and os.listdir(run) == [LOCK]:
                    (run / LOCK).unlink()  # who has opened it in the meantime sees in `_opened` that it is gone
                    run.rmdir()
            os.close(descriptor)  # which releases the lock


def _opened(run: Path) -> tuple[int | None, str]:
    """The descriptor of the lock file, and the problem if it is not locked."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except OSError as error:
        return None, f"{error.filename or run}: the run folder cannot be written ({error.strerror or error})"
    if not take_lock(descriptor):
        return descriptor, (
            f"{run} is in use by {_holder(descriptor)}; wait for it, end it, or choose another --work-dir"
        )
    if not os.fstat(descriptor).st_nlink:  # its holder removed it as it ended
        os.close(descriptor)
        return _opened(run)
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
    _sweep(run)
    return descriptor, ""


def _sweep(run: Path) -> None:
    """Remove what killed processes were writing in a run's own folders: the lock says that none still does."""
    for folder in (run, run / "checkpoints", run / "pictures"):
        for left in folder.glob(f"{TEMPORARY}*"):
            with suppress(OSError):
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def _holder(descriptor: int) -> str:
    """What the holder wrote; waits for one that has locked the file just now and is about to write."""
    with suppress(OSError):
        for _ in range(TRIES_TO_READ):
            time.sleep(0.05)
            if name := os.pread(descriptor, 200, 0).decode(errors="replace"):
                return name
    return "another process"
