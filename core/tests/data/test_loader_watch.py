"""Loader processes that stop or end are noticed."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from det_core.data import loader
from det_core.data.coco_dataset import CocoDataset
from det_core.data.loader import test_loader as make_loader
from det_core.data.loader_watch import worker_errors
from det_core.errors import DataError


@pytest.fixture
def data(make_coco: Callable[..., Path]) -> CocoDataset:
    root = make_coco()
    return CocoDataset(root / "instances_train.json", root / "images")


def send(number: signal.Signals) -> list[int]:
    """Send a signal to the loader processes; their ids."""
    workers = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
    for pid in workers:
        os.kill(pid, number)
    return workers


def test_stopped_processes(
    data: CocoDataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loader, "PATIENCE", 0.3)
    monkeypatch.setattr(CocoDataset, "load", lambda self, index: signal.pause())
    images = iter(make_loader(data, [], 1, timeout=1))
    stopped: list[int] = []

    def stop(*_: object) -> None:
        stopped.extend(send(signal.SIGSTOP))

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with (
            caplog.at_level(logging.WARNING),
            pytest.raises(DataError, match=r"returned no image for \d s: process \d+ is stopped; --timeout sets"),
        ):
            next(images)
    finally:
        signal.signal(signal.SIGALRM, before)
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
    assert f"the loader processes have returned no image for 0 s: process {stopped[0]} is stopped" in caplog.text


def test_killed_processes(data: CocoDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CocoDataset, "load", lambda self, index: os.kill(os.getpid(), signal.SIGKILL))
    message = r"a loader process has ended \(DataLoader worker .*--set data\.workers=0"
    with pytest.raises(DataError, match=message), worker_errors():
        list(make_loader(data, [], 1))
    with pytest.raises(RuntimeError, match="another"), worker_errors():
        raise RuntimeError("another error")
