"""Says for whom a rank waits.

All ranks take part in the same exchanges in the same order. Each rank posts the number of exchanges that it has begun,
so a rank that waits long in one knows the ranks that have begun fewer.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import distributed as dist

from det_core.errors import DetError

KEY = "det watch/{}"
PATIENCE = 60.0  # seconds before a waiting rank says for whom, and between two such messages
POST_EVERY = 5.0  # seconds between posts
LATEST = 0.5  # seconds that a rank waits for the others' posts when an exchange has failed

log = logging.getLogger(__name__)


class Store(Protocol):
    """The part of torch.distributed.Store that posts need."""

    def set(self, key: str, value: str, /) -> Any: ...
    def get(self, key: str, /) -> bytes: ...
    def check(self, keys: list[str], /) -> bool: ...


class RankWatch:
    """Counts the exchanges of this rank, posts the count in the store, and logs a warning while it waits long.

    patience: seconds of waiting before a warning. post_every: seconds between posts.
    """

    def __init__(
        self, rank: int, size: int, store: Store, *, patience: float = PATIENCE, post_every: float = POST_EVERY
    ) -> None:
        self._rank, self._size, self._store = rank, size, store
        self._patience, self._post_every = patience, post_every
        self._began, self._what = 0, "the start"
        self._waiting_since: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="det rank watch", daemon=True)
        self._thread.start()

    @contextmanager
    def exchange(self, what: str) -> Iterator[None]:
        """Inside, this rank waits for all others in one exchange.

        Raises:
            DetError: the exchange failed: a rank has ended, or did not come in time.
        """
        self._began, self._what = self._began + 1, what
        began = self._waiting_since = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            if not is_communication_error(error):
                raise
            time.sleep(LATEST)
            waited = time.monotonic() - began
            raise DetError(
                f"rank {self._rank}: {what}: the exchange with the other ranks failed after {waited:.0f} s: "
                f"{self._for_whom()} ({_first_line(error)})"
            ) from error
        finally:
            self._waiting_since = None

    def end(self) -> None:
        """Stop posting."""
        self._ended.set()
        self._thread.join(timeout=self._post_every)

    def _run(self) -> None:
        reported = 0.0
        while not self._ended.wait(min(self._post_every, self._patience / 4)):
            try:
                self._store.set(KEY.format(self._rank), json.dumps([self._began, self._what]))
                since = self._waiting_since
                if since is not None and time.monotonic() - max(since, reported) >= self._patience:
                    reported = time.monotonic()
                    waited = reported - since
                    log.warning("rank %d has waited %.0f s at %s: %s", self._rank, waited, self._what, self._for_whom())
            except RuntimeError:  # the store's process has ended, and with it the run
                return

    def _for_whom(self) -> str:
        """The ranks that have begun fewer exchanges, and where they are, as text."""
        try:
            posts = {rank: self._post_of(rank) for rank in range(self._size) if rank != self._rank}
        except RuntimeError:
            return "rank 0 has ended"
        behind = [
            f"rank {rank}, " + ("which has not started" if post is None else f"which was last at {post[1]}")
            for rank, post in posts.items()
            if post is None or post[0] < self._began
        ]
        return f"it waits for {'; '.join(behind)}" if behind else "all ranks are there, so the connection is slow"

    def _post_of(self, rank: int) -> tuple[int, str] | None:
        key = KEY.format(rank)
        if not self._store.check([key]):
            return None
        began, what = json.loads(self._store.get(key))
        return began, what


def is_communication_error(error: RuntimeError) -> bool:
    """Whether torch.distributed raised this; gloo's errors have no type of their own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
