"""Shows which implementation runs each operator, builds the native libraries ahead of time, or removes them."""

from __future__ import annotations

import argparse
import importlib
import sys

import det_ops
from det_ops import native
from det_ops.native import cache, settings


def main(arguments: list[str] | None = None) -> int:
    """Runs a command of `python -m det_ops`; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "build":
            return _build(options.cuda, options.force)
        return _clean() if options.command == "clean" else _status()
    except settings.SettingError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    epilog = "det_ops/native/settings.py documents the environment variables."
    parser = argparse.ArgumentParser("python -m det_ops", description=__doc__, epilog=epilog)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser(
        "status", help="show the state of the libraries and the implementation of each operator (default)"
    )
    build = commands.add_parser("build", help="build the libraries now instead of at first use")
    build.add_argument("--cuda", action="store_true", help="also build the CUDA library")
    build.add_argument("--force", action="store_true", help="rebuild existing libraries")
    commands.add_parser("clean", help="remove the built libraries")
    return parser


def _libraries(cuda: bool = True) -> list[native.NativeLibrary]:
    known = importlib.import_module("det_ops.libraries")
    return [known.CPU, known.CUDA] if cuda else [known.CPU]


def _status() -> int:
    for library in _libraries():
        _say(f"{library.name}: {native.peek(library).summary()}")
    for operator in det_ops.status():
        remedy = f" ({operator.remedy})" if operator.remedy else ""
        _say(f"{operator.name}: {operator.served_by}{remedy}")
    return 0


def _build(cuda: bool, force: bool) -> int:
    outcomes = [native.build(library, force) for library in _libraries(cuda)]
    for outcome in outcomes:
        _say(f"{outcome.name}: {_built(outcome)}")
    return 1 if any(outcome.path is None for outcome in outcomes) else 0


def _built(outcome: native.Outcome) -> str:
    if outcome.path is None:
        log = f"\n{outcome.log}" if outcome.log else ""
        return f"cannot build: {outcome.reason}; {outcome.remedy}{log}"
    if outcome.built_seconds is None:
        return f"already built: {outcome.path}"
    return f"built in {outcome.built_seconds:.1f} seconds: {outcome.path}"


def _clean() -> int:
    gone = cache.clean(settings.read())
    for path in gone:
        _say(f"removed {path}")
    if not gone:
        _say("nothing to remove")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
