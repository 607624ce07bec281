"""A lock that lets one process build at a time; the kernel releases it if its holder dies."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from det_ops.native.outcome import CannotBuild, say

SAY_AFTER = 5.0  # seconds before a message is printed
_POLL = 0.05
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # a link that somebody has put there is not followed


@contextmanager
def held(path: Path, what: str, timeout: float) -> Iterator[bool]:
    """Holds the lock on a file. The file is not removed; its existence has no meaning.

    Yields:
        Whether it is locked. Some network file systems do not support locks. Building without one is safe, since each
        builder has its own folder, which is renamed when it is complete; at worst, the library is built twice.

    Raises:
        CannotBuild: after `timeout` seconds.
        OSError: if the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
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
            raise CannotBuild(reason, "end that process if it hangs, or set DET_OPS_LOCK_TIMEOUT to more seconds")
        if silent and waited > SAY_AFTER:
            silent = False
            say(f"waiting for {_holder(descriptor)}, which builds {what} (up to {timeout:g} seconds)")
        time.sleep(_POLL)
    return answer


def _attempt(descriptor: int) -> bool | None:
    """True: locked. None: another process holds the lock. False: locks are not supported."""
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
    """Writes the holder into the file, for the messages of waiting processes."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)


def _holder(descriptor: int) -> str:
    with suppress(OSError):
        return os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
    return "another process"
