"""One builder at a time, by a lock that the kernel lets go when its holder dies."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from det_ops.native.outcome import CannotBuild, say

SAY_AFTER = 5.0  # seconds of silence
_POLL = 0.05


@contextmanager
def held(path: Path, what: str, timeout: float) -> Iterator[bool]:
    """Holds the lock on a file, which stays: a left-over file means nothing.

    Yields:
        Whether it is really locked. Some network file systems cannot lock; building goes on without, since each
        builder has its own folder and the finished one is renamed into place: at worst, work is done twice.

    Raises:
        CannotBuild: after `timeout` seconds.
        OSError: if the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        locked = _wait(descriptor, what, timeout)
        if locked:
            _sign(descriptor)
        yield locked
    finally:
        os.close(descriptor)  # which unlocks


def _wait(descriptor: int, what: str, timeout: float) -> bool:
    start = time.monotonic()
    silent = True
    while (answer := _attempt(descriptor)) is None:
        waited = time.monotonic() - start
        if waited > timeout:
            reason = f"waited {timeout:g} seconds for {_holder(descriptor)}, which builds {what}"
            raise CannotBuild(reason, "end that process if it hangs, or allow more by DET_OPS_LOCK_TIMEOUT=SECONDS")
        if silent and waited > SAY_AFTER:
            silent = False
            say(f"waiting for {_holder(descriptor)}, which builds {what} (up to {timeout:g} seconds)")
        time.sleep(_POLL)
    return answer


def _attempt(descriptor: int) -> bool | None:
    """True: locked. None: somebody else holds it. False: there are no locks here."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True


def _sign(descriptor: int) -> None:
    """Leaves word of who holds it, for the messages of those who wait."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)


def _holder(descriptor: int) -> str:
    with suppress(OSError):
        return os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
    return "another process"
