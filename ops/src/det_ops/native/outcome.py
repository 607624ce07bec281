"""The outcome of loading or building a library, and messages about it."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Origin = Literal["", "prebuilt", "cache", "build", "process"]
COST = "operators run in torchvision or plain PyTorch, several to several hundred times slower"
_warned: set[str] = set()


class NativeError(RuntimeError):
    """A library that is required cannot be loaded."""


class CannotBuild(Exception):
    """Building is impossible here. Internal to this package: `load` converts it to an Outcome."""

    def __init__(self, reason: str, remedy: str, log: str = "") -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy
        self.log = log


@dataclass(frozen=True)
class Outcome:
    """The state of a library.

    Args:
        name: of the library.
        loaded: whether its operators are registered in this process.
        path: the library file, if there is one.
        reason: why it cannot be loaded; empty if nothing is wrong.
        remedy: how to fix it.
        built_seconds: the build time, if this call built it.
        origin: where it was found. "process": already loaded, from a path that other code chose.
        switched_off: the user disabled it, so no warning is needed.
        plan: the tools that would build it, if it is not built yet.
        log: last lines of the log, if the build failed.
        note: additional information that is not a problem.
    """

    name: str
    loaded: bool = False
    path: Path | None = None
    reason: str = ""
    remedy: str = ""
    built_seconds: float | None = None
    origin: Origin = ""
    switched_off: bool = False
    plan: str = ""
    log: str = ""
    note: str = ""

    def summary(self) -> str:
        """One line for a list of libraries."""
        note = f" ({self.note})" if self.note else ""
        if self.switched_off:
            return f"off: {self.reason}"
        if self.reason:
            return f"cannot build: {self.reason}; {self.remedy}{note}"
        if self.path is not None:
            prebuilt = self.origin == "prebuilt"
            if self.loaded:
                return f"loaded from {self.path}{', prebuilt' if prebuilt else ''}{note}"
            return f"{'prebuilt' if prebuilt else 'built'} at {self.path}{note}"
        return f"not built yet: would build with {self.plan}{note}"

    def warning_text(self) -> str:
        """The text of the warning: reason, cost, remedy."""
        also = f" Also, {self.note}." if self.note else ""
        text = f"the native library {self.name} is not in use: {self.reason}. Cost: {COST}. Remedy: {self.remedy}."
        return text + also

    def error_text(self) -> str:
        """The text of NativeError if the library is required."""
        text = f"DET_OPS_NATIVE=require, but the native library {self.name} cannot be loaded: {self.reason}. "
        text += f"Remedy: {self.remedy}."
        return f"{text}\nThe compiler's last lines:\n{self.log}" if self.log else text


def warn_once(outcome: Outcome) -> None:
    """Warns once per process and library that it is not loaded, unless it is switched off."""
    if outcome.loaded or outcome.switched_off or outcome.name in _warned:
        return
    _warned.add(outcome.name)
    warnings.warn(outcome.warning_text(), RuntimeWarning, stacklevel=3)


def say(text: str) -> None:
    """Prints a line to stderr, which keeps stdout free for the output of programs."""
    sys.stderr.write(f"det-ops: {text}\n")
    sys.stderr.flush()
