"""The packages of this repository: their folders, names and versions, for the tools beside this file."""

from __future__ import annotations

import os
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Package:
    """A package of this repository: its folder and the `[project]` table of its pyproject.toml."""

    folder: Path
    name: str
    version: str

    @property
    def project_file(self) -> Path:
        return self.folder / "pyproject.toml"

    @property
    def init_file(self) -> Path:
        """The module that contains `__version__`."""
        return self.folder / "src" / self.name.replace("-", "_") / "__init__.py"


def packages(root: Path = ROOT) -> list[Package]:
    """Everything that is released: det-ops, its prebuilt kernels, det-core and the plugins, in this order."""
    plugins = sorted(file.parent for file in root.glob("plugins/*/pyproject.toml"))
    return [_package(folder) for folder in (root / "ops", root / "kernels", root / "core", *plugins)]


def examples(root: Path = ROOT) -> list[Package]:
    """The packages in examples/: they have versions of their own, and require released packages."""
    return [_package(file.parent) for file in sorted(root.glob("examples/*/pyproject.toml"))]


def _package(folder: Path) -> Package:
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf8"))["project"]
    return Package(folder, project["name"], project["version"])


def fail(problems: Sequence[str]) -> NoReturn:
    """Ends the program with these lines on stderr and exit status 1."""
    for problem in problems:
        sys.stderr.write(f"error: {problem}\n")
    raise SystemExit(1)


def write(path: Path, text: str) -> None:
    """Writes a file aside, then renames it: a reader finds the whole old or the whole new text."""
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf8", newline="\n") as file:
            file.write(text)
        os.chmod(aside, path.stat().st_mode if path.exists() else 0o644)
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
