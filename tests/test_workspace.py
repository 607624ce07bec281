"""The workspace: the Makefile's messages, versions and what the packages declare."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = [ROOT / "ops", ROOT / "core", *sorted(p.parent for p in (ROOT / "plugins").glob("*/pyproject.toml"))]


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf8"))["project"]


@pytest.fixture
def workspace(tmp_path) -> Path:
    """A folder with the Makefile and what it looks at, and no environment."""
    for name in ("Makefile", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    for folder in PROJECTS:
        target = tmp_path / folder.relative_to(ROOT)
        target.mkdir(parents=True)
        shutil.copy(folder / "pyproject.toml", target)
    return tmp_path


def make(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=workspace, capture_output=True, text=True, check=False, env=environment
    )


def test_make_alone_lists_the_targets(workspace):
    done = make(workspace)
    assert done.returncode == 0
    listed = {line.split()[1] for line in done.stdout.splitlines()}
    assert {"demo", "test", "lint", "wheels", "env", "help"} <= listed


def test_without_a_new_enough_python_it_says_so(workspace):
    done = make(workspace, "env", "PYTHON=")
    assert done.returncode != 0
    assert "error: no Python >= 3.11 found" in done.stderr
    assert "make PYTHON=/path/to/python3" in done.stderr
    assert not (workspace / ".venv").exists()


def test_without_the_venv_module_it_says_so(workspace):
    python = workspace / "python-without-venv"
    python.write_text("#!/bin/sh\nexit 1\n", encoding="utf8")
    python.chmod(0o755)
    done = make(workspace, "env", "PYTHON=./python-without-venv")
    assert done.returncode != 0
    assert "lacks the venv module; on Debian or Ubuntu: apt install python3-venv" in done.stderr


def test_the_environment_is_made_from_every_package_and_again_when_one_changes(workspace):
    plan = make(workspace, "--dry-run", "test").stdout
    for folder in PROJECTS:
        assert f"./{folder.relative_to(ROOT)}" in plan
    assert "-c constraints.txt" in plan
    bin_folder = workspace / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    (workspace / ".venv" / ".installed").touch()
    assert "pip install" not in make(workspace, "--dry-run", "test").stdout
    changed = workspace / "core" / "pyproject.toml"
    later = changed.stat().st_mtime + 10**6
    os.utime(changed, (later, later))
    assert "pip install" in make(workspace, "--dry-run", "test").stdout


def test_testing_ends_with_pytest(workspace):
    (workspace / ".venv").mkdir()
    (workspace / ".venv" / ".installed").touch()
    lines = make(workspace, "--dry-run", "test").stdout.splitlines()
    steps = [
        next((s for s in ("ruff check", "ruff format", "mypy", "pytest") if f"bin/{s}" in x or f"-m {s}" in x), None)
        for x in lines
    ]
    assert [s for s in steps if s] == ["ruff check", "ruff format", "mypy", "pytest"]
    assert "-m pytest" in lines[-1]


def test_continuous_integration_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf8").rstrip().endswith("exec make test")


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda f: f.name)
def test_packages_set_lower_bounds_only(folder):
    data = project(folder)
    assert data["requires-python"] == ">=3.11"
    assert data["classifiers"] == ["License :: OSI Approved :: Apache Software License"]  # read by any setuptools
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (folder / data["readme"]).exists()
    for requirement in data["dependencies"]:
        own = requirement.startswith("det-")
        assert re.fullmatch(r"[\w.-]+(>=[\d.]+(,<\d+)?)" if own else r"[\w.-]+(>=[\d.]+)?", requirement), requirement


def test_the_tested_versions_cover_what_the_packages_require():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {name.lower().replace("_", "-") for name in pins}
    assert len(pins) == len(pinned)
    for folder in PROJECTS:
        data = project(folder)
        optional = [r for extra in data.get("optional-dependencies", {}).values() for r in extra]
        for requirement in data["dependencies"] + optional:
            name = re.match(r"[\w.-]+", requirement)[0].lower()  # type: ignore[index]
            assert name in pinned or name.startswith("det-"), f"{name} is not in constraints.txt"


def test_everything_installed_has_the_version_of_its_source():
    for folder in PROJECTS:
        data = project(folder)
        assert version(data["name"]) == data["version"]


def test_nothing_refers_to_folders_outside_the_repository():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    outside = re.compile(r"/(?:home|root|Users|work|mnt)/\w")
    for name in filter(None, tracked.stdout.split("\0")):
        file = ROOT / name
        if file.suffix in (".py", ".toml", ".md", ".yaml", ".txt", ".json", ".template", "") and file.is_file():
            found = outside.search(file.read_text(encoding="utf8", errors="replace"))
            assert not found, f"{name} refers to {found[0]}..."
