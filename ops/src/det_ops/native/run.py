"""Runs a tool and returns its output, or raises with a one-line reason."""

from __future__ import annotations

import os
import subprocess

from det_ops.native.outcome import CannotBuild

_TIMEOUT = 60.0


def output(command: list[str], what: str, remedy: str) -> str:
    """The standard output of a command.

    Raises:
        CannotBuild: if it cannot be started, hangs, or fails, with the first line of its error output.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, env=environment
        )
    except OSError as error:
        raise CannotBuild(f"{what} does not run ({command[0]}: {error.strerror or error})", remedy) from None
    except subprocess.TimeoutExpired:
        raise CannotBuild(f"{what} hangs ({command[0]}: no answer in {_TIMEOUT:g} seconds)", remedy) from None
    if done.returncode != 0:
        first = (done.stderr or done.stdout).strip().partition("\n")[0] or f"exit code {done.returncode}"
        raise CannotBuild(f"{what} fails ({command[0]}: {first})", remedy)
    return done.stdout
