"""Source distributions and wheels of all packages, built once for a whole run of the tests."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
import workspace
from attrs import frozen

ROOT = Path(__file__).resolve().parents[1]
_NAMES = {package.folder: package.name for package in workspace.packages()}
# Without det-ops-kernels, which is built for a platform.
PROJECTS = [folder for folder, name in _NAMES.items() if name != "det-ops-kernels"]


def name_of(folder: Path) -> str:
    """The name of the distribution in a folder."""
    return _NAMES[folder]


def file_of(folder: Path, built: Path, kind: str) -> Path:
    """The wheel (`whl`) or source distribution (`tar.gz`) of a package in the folder with what was built."""
    (file,) = built.glob(f"{name_of(folder).replace('-', '_')}-*.{kind}")
    return file


@frozen
class Built:
    """dist: what `make dist` builds, source distributions and wheels made from them. direct: wheels of the sources."""

    dist: Path
    direct: Path


def built_once(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Builds, or waits until another process of the same run of the tests has built."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    found = Built(shared / "built" / "dist", shared / "built" / "direct")
    found.dist.parent.mkdir(exist_ok=True)
    with open(found.dist.parent / "lock", "w", encoding="utf8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (found.dist.parent / "done").exists():
            _build("--out", found.dist)
            _build("--wheels", "--out", found.direct)
            (found.dist.parent / "done").touch()
    return found


def _build(*options: object) -> None:
    command = [sys.executable, str(ROOT / "tools" / "build.py"), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
