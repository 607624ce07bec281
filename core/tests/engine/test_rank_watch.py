"""A rank that waits long says for whom."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from det_core.engine import rank_watch
from det_core.engine.distributed import World, barrier, exchange, gather
from det_core.engine.rank_watch import KEY, RankWatch
from det_core.errors import DetError


class Posts(dict[str, bytes]):
    """A store of this process."""

    def set(self, key: str, value: str) -> None:
        self[key] = value.encode()

    def get(self, key: str) -> bytes:  # type: ignore[override]
        return self[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)


@pytest.fixture
def posts() -> Posts:
    return Posts({KEY.format(1): json.dumps([3, "a checkpoint"]).encode()})


@pytest.fixture
def watch(posts: Posts, monkeypatch: pytest.MonkeyPatch) -> Iterator[RankWatch]:
    monkeypatch.setattr(rank_watch, "LATEST", 0.0)
    made = RankWatch(0, 3, posts, patience=0.1, post_every=0.02)
    yield made
    made.end()


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not condition() and time.monotonic() < ends:
        time.sleep(0.01)
    assert condition()


def test_who_waits_says_for_whom(watch: RankWatch, posts: Posts, caplog: pytest.LogCaptureFixture) -> None:
    watch._began = 3
    with caplog.at_level(logging.WARNING), watch.exchange("the losses of a step"):
        until(lambda: len(caplog.records) >= 2)
    first = caplog.records[0].getMessage()
    assert first.startswith("rank 0 has waited 0 s at the losses of a step: it waits for rank 1, which was last at a")
    assert "a checkpoint; rank 2, which has not started" in first
    until(lambda: json.loads(posts[KEY.format(0)]) == [4, "the losses of a step"])


def test_a_short_wait_says_nothing(watch: RankWatch, posts: Posts, caplog: pytest.LogCaptureFixture) -> None:
    with watch.exchange("a checkpoint"):
        until(lambda: KEY.format(0) in posts)
    time.sleep(0.2)
    assert not caplog.records


def test_an_exchange_that_fails_is_an_error_that_says_who_is_missing(watch: RankWatch) -> None:
    watch._began = 3
    with (
        pytest.raises(
            DetError, match=r"rank 0: a step: .* failed after 0 s: it waits for rank 1, .*; rank 2.*\(\[gloo"
        ),
        watch.exchange("a step"),
    ):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer\nmore")
    with pytest.raises(RuntimeError, match="another"), watch.exchange("a step"):
        raise RuntimeError("another error")


def test_all_ranks_are_there(watch: RankWatch, posts: Posts) -> None:
    posts.set(KEY.format(2), json.dumps([1, "a step"]))
    with pytest.raises(DetError, match="all ranks are there"), watch.exchange("a step"):
        raise RuntimeError("gloo: slow")


def test_without_other_ranks_nothing_is_exchanged() -> None:
    alone = World(0, 1, torch.device("cpu"))
    with exchange("a step", alone):
        barrier(alone, "a step")
        assert gather(5, alone, "a step") == [5]
