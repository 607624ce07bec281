"""Builds source distributions and wheels of all packages.

    python tools/build.py [--out dist]            source distributions, and wheels made from them
    python tools/build.py --wheels [--out dist]   wheels only, made from the sources
    python tools/build.py --kernels [--out dist]  the wheel of det-ops-kernels, for this platform

Packages are built from copies, without network and with the setuptools of this Python: builds write beside their
sources, and what an earlier build left there must not come in. det-ops-kernels is compiled (or taken from the cache of
det-ops), requires det-ops, and has no source distribution.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import workspace

LEFT_OUT = shutil.ignore_patterns("build", "dist", "*.egg-info", "__pycache__", "*.so", ".*")
HOOK = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


class BuildFailed(Exception):
    """A package cannot be built; with its name and the output."""


def build_sources(folder: Path, out: Path, scratch: Path) -> Iterator[Path]:
    """The source distribution of a package, and the wheel that it gives."""
    archive = _call("build_sdist", _copied(folder, scratch), out)
    yield archive
    unpacked = scratch / f"{folder.name}-from-archive"
    with tarfile.open(archive) as file:
        file.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    yield _call("build_wheel", source, out)


def build_wheel(folder: Path, out: Path, scratch: Path) -> Iterator[Path]:
    """The wheel of a package."""
    yield _call("build_wheel", _copied(folder, scratch), out)


def _copied(folder: Path, scratch: Path) -> Path:
    # Not `build` in any name of a package here, which LEFT_OUT would remove: `tests/test_wheels.py` compares the files.
    return Path(shutil.copytree(folder, scratch / folder.name, ignore=LEFT_OUT))


def _call(hook: str, source: Path, out: Path) -> Path:
    """Calls a hook of PEP 517 in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", HOOK, hook, str(out)],
        cwd=source, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    if done.returncode:
        raise BuildFailed(f"{source.name}: {hook} failed\n{done.stdout}{done.stderr}")
    return out / done.stdout.splitlines()[-1]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Build source distributions and wheels of all packages.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--wheels", action="store_true", help="wheels only")
    what.add_argument("--kernels", action="store_true", help="the wheel of det-ops-kernels only")
    parser.add_argument("--out", type=Path, default=workspace.ROOT / "dist", help="the folder for the files (dist)")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    packages = [p for p in workspace.packages() if (p.name == "det-ops-kernels") == options.kernels]
    build = build_wheel if options.wheels or options.kernels else build_sources
    with tempfile.TemporaryDirectory(prefix="det-build-") as scratch:
        for package in packages:
            try:
                for file in build(package.folder, out, Path(scratch)):
                    print(file.name, flush=True)
            except BuildFailed as error:
                workspace.fail([str(error)])


if __name__ == "__main__":
    main()
