"""Notices loader processes that have ended, or that return nothing for long."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from det_core.errors import DataError

PATIENCE = 60.0  # seconds without a batch before a warning, and between two warnings
STATES = {"T": "stopped", "t": "stopped by a debugger", "D": "waiting for a disk", "Z": "ended"}

log = logging.getLogger(__name__)


@contextmanager
def worker_errors(remedy: str = "--set data.workers=0") -> Iterator[None]:
    """Turn torch's RuntimeError for a loader process that has ended into a DataError.

    remedy: the option that leaves them out.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise DataError(
            f"a loader process has ended ({str(error).partition('. ')[0]}), perhaps because memory ran out; use fewer "
            f"or none ({remedy})"
        ) from error


def watched(batches: DataLoader[Any], timeout: float) -> Iterator[Any]:
    """Iterate over a DataLoader whose `timeout` is the number of seconds after which a warning is logged.

    timeout: seconds without a batch after which DataError is raised.
    """
    iterator = iter(batches)
    last = time.monotonic()
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out"):
                raise
            waited = time.monotonic() - last
            what = f"the loader processes have returned no image for {waited:.0f} s: {_states()}"
            if waited >= timeout:
                raise DataError(f"{what}; --timeout sets how long is waited") from error
            log.warning("%s", what)
        else:
            yield batch
            last = time.monotonic()


def _states() -> str:
    """The child processes and their states, where the system tells them."""
    children = sorted(child.pid for child in multiprocessing.active_children() if child.pid is not None)
    return ", ".join(f"process {pid} is {_state(pid)}" for pid in children) or "all of them have ended"


def _state(pid: int) -> str:
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "running"
    return STATES.get(letter, "running")
