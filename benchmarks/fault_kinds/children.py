"""Processes forked from this one, which need not import again what takes most of a short run's time."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

FORK = multiprocessing.get_context("fork")
LIMIT = 300.0  # seconds until a process counts as hanging
Found = tuple[str, int, list[str]]  # what was tried, how often, what failed


@dataclass(frozen=True)
class Sizes:
    """How long to look. seconds: of each of these readers. count, rounds, steps: see `faults.py`. small: kernels."""

    readers: tuple[str, ...]
    seconds: float
    seed: int
    count: int
    rounds: int
    steps: int
    small: bool


class Child:
    """A process that calls a function and exits with the number that it returns; its output is in two files."""

    def __init__(self, call: Callable[[], int | None], output: Path) -> None:
        self.output = output
        self.process = FORK.Process(target=_call, args=(call, output))
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def end(self, seconds: float = LIMIT) -> int:
        """Its exit status, negative for a signal; it is killed if it takes longer."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.kill()
        assert self.process.exitcode is not None
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.join()

    @property
    def said(self) -> str:
        """What it printed."""
        return self.output.read_text(encoding="utf8", errors="replace")

    @property
    def errors(self) -> str:
        """What it printed on stderr."""
        return _errors(self.output).read_text(encoding="utf8", errors="replace").strip()


def command(*arguments: object) -> Callable[[], int]:
    """A command line of det-core, as a function."""

    def call() -> int:
        from det_core.cli.main import run

        return run([str(argument) for argument in arguments])

    return call


def import_all() -> None:
    """Import what the commands need, so that children have it. Starts no thread, which a fork would lose."""
    import torch

    from det_core.plugins import plugin_manager

    for name in ("cli.main", "cli.predict", "cli.train", "engine.evaluate", "engine.train"):
        importlib.import_module(f"det_core.{name}")
    for name in ("matplotlib.pyplot", "torch.utils.tensorboard"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    torch.set_num_threads(1)
    plugin_manager()


def one_line(child: Child) -> str:
    """The line of an error that it ended with; otherwise, what is wrong with its end, after `NOT ONE LINE`."""
    text = child.errors
    if child.process.exitcode == 1 and text.startswith("error: ") and len(text.splitlines()) == 1:
        return text
    return f"NOT ONE LINE (status {child.process.exitcode}): {text[-600:]}"


@contextlib.contextmanager
def ended(*children: Child) -> Iterator[None]:
    """Kills those that still run at the end."""
    try:
        yield
    finally:
        for child in children:
            if child.process.is_alive():
                child.kill()


def _errors(output: Path) -> Path:
    return output.with_name(output.name + ".err")


def _call(call: Callable[[], int | None], output: Path) -> None:
    for number, path in ((1, output), (2, _errors(output))):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False, encoding="utf8") for number in (1, 2))
    sys.exit(call() or 0)
