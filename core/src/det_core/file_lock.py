"""Locks of open files, which the system releases when their process ends."""

from __future__ import annotations

import sys


def take_lock(descriptor: int) -> bool:
    """Try to lock an open file for this process; False if another one holds it.

    True also on file systems, and on systems, without locks.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
