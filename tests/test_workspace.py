"""The workspace: the Makefile's messages, versions and what the packages declare."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
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
    assert {"demo", "test", "lint", "wheels", "env", "help", "dist", "kernels", "version", "changelog"} <= listed


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


def test_the_site_is_built_where_git_ignores_it(workspace):
    (workspace / "docs").mkdir()  # a folder of the target's name
    plan = make(workspace, "--dry-run", "docs").stdout
    assert 'docs/make_site.py --out "site"' in plan
    assert "pip install" in plan
    for tool in ("sphinx", "furo", "myst-parser", "sphinx-copybutton"):
        assert f" {tool}" in plan
        assert re.search(rf"^{tool}==", (ROOT / "constraints.txt").read_text(encoding="utf8"), re.M | re.I)


def test_continuous_integration_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf8").rstrip().endswith("exec make test")


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda f: f.name)
def test_packages_set_lower_bounds_only(folder):
    data = project(folder)
    assert data["requires-python"] == ">=3.11"
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


# make clean

# What the targets make: environments, wheels, caches, builds and metadata of the packages, the run of `make demo`.
MADE = (
    ".venv/.installed",
    ".venv/bin/python",
    ".venv-oldest/constraints.txt",
    ".venv-gpu/.installed",
    ".venv-3.13/.installed",  # made by `make VENV=.venv-3.13 env`
    ".venv-3.13/bin/python",
    "dist/det_core-0.1.0-py3-none-any.whl",
    "runs/demo/last.pt",
    "runs/demo/predictions/1 2.png",
    ".pytest_cache/README.md",
    ".mypy_cache/3.11/cache.json",
    ".ruff_cache/content",
    ".hypothesis/examples/1",
    "ops/build/lib/det_ops/old.py",
    "ops/src/det_ops.egg-info/PKG-INFO",
    "core/build/lib/det_core/old name.py",
    "kernels/build/lib/det_ops_kernels/old.py",
    "tools/__pycache__/version.cpython-311.pyc",
    "core/src/det_core/__pycache__/box.cpython-311.pyc",
    "core/tests/__pycache__/test_box.cpython-311.pyc",
    "plugins/tiny/build/lib/det_plugin_tiny/old.py",
    "plugins/tiny/src/det_plugin_tiny.egg-info/PKG-INFO",
    "plugins/two words/build/lib/old.py",
    "plugins/two words/two words.egg-info/PKG-INFO",
    "plugins/two words/tests/__pycache__/test_words.cpython-311.pyc",
    "examples/det-plugin-mine/build/lib/old.py",
    "examples/det-plugin-mine/src/det_plugin_mine.egg-info/PKG-INFO",
    "examples/det-plugin-mine/.ruff_cache/content",
    "tests/__pycache__/conftest.cpython-311.pyc",
    "tests/parity/__pycache__/golden.cpython-311.pyc",
    "benchmarks/__pycache__/measure.cpython-311.pyc",
    "docs/__pycache__/make_zoo.cpython-311.pyc",
    "site/source/index.md",
    "site/html/index.html",
)
# Sources and what users keep: runs, data, an environment of their own, folders named like something that make makes.
KEPT = (
    "Makefile",
    "constraints.txt",
    "ops/pyproject.toml",
    "core/pyproject.toml",
    "kernels/pyproject.toml",
    "plugins/tiny/pyproject.toml",
    "plugins/two words/pyproject.toml",
    "examples/det-plugin-mine/pyproject.toml",
    "core/src/det_core/box.py",
    "core/src/det_core/build/__init__.py",
    "core/src/det_core/dist/__init__.py",
    "core/src/build/__init__.py",
    "core/tests/build/test_build.py",
    "plugins/tiny/src/det_plugin_tiny/build/__init__.py",
    "plugins/build/notes.txt",
    "plugins/two/build/notes.txt",  # no package, and the first word of one
    "examples/data/build/1.jpg",
    "build/notes.txt",
    "data/build/1.jpg",
    "data/__pycache__/features.pyc",
    "my data/build/1 2.jpg",
    "my data/some.egg-info/1.jpg",
    "runs/mine/last.pt",
    "runs/mine/__pycache__/cached.pyc",
    "runs/build/last.pt",
    "runs/demo-again/last.pt",
    "runs/demo 2/last.pt",
    "runs/dist/last.pt",
    "docs/site/index.md",
    ".venv-notebook/bin/python",
    ".git/refs/heads/build/main",
    ".git/logs/refs/heads/build/main",
)


def write(folder: Path, *names: str) -> None:
    """A file of each of these names, which has some text; files that are there keep theirs."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text("text", encoding="utf8")


def files_of(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


@pytest.fixture
def used(tmp_path) -> Path:
    """A workspace, in a folder with a space in its name, in which everything was made and a user has worked."""
    folder = tmp_path / "the workspace"
    folder.mkdir()
    for name in ("Makefile", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    write(folder, *MADE, *KEPT)
    return folder


def cleaned(folder: Path, *arguments: str) -> set[str]:
    done = make(folder, "clean", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return files_of(folder)


def test_clean_removes_what_make_made_and_nothing_of_a_user(used):
    left = cleaned(used)
    assert sorted(left & set(MADE)) == []
    assert sorted(left) == sorted(KEPT)
    assert not (used / "runs" / "demo").exists()
    assert not (used / ".venv").exists()


def test_clean_removes_runs_if_the_demo_was_the_only_one(used):
    for run in (used / "runs").iterdir():
        if run.name != "demo":
            shutil.rmtree(run)
    cleaned(used)
    assert not (used / "runs").exists()


def test_clean_where_there_is_nothing_to_remove(used):
    cleaned(used)
    assert cleaned(used) == set(KEPT)


def test_clean_in_a_workspace_without_packages(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    assert cleaned(tmp_path) == {"Makefile"}


def test_clean_touches_nothing_outside_of_the_workspace(used):
    """Neither beside the workspace nor behind links that lead out of it."""
    outside = used.parent / "outside"
    made = ("build/1.jpg", "demo/last.pt", "src/x.egg-info/PKG-INFO", "src/__pycache__/x.pyc", "pyproject.toml")
    write(outside, *made)
    write(used.parent, "build/1.jpg", "dist/1.whl", "runs/demo/last.pt", ".venv/.installed", "core/build/1.jpg")
    links = {
        "data/linked": outside,
        "plugins/linked": outside,
        "core/src/linked": outside,
        ".venv-linked": used.parent / ".venv",
        ".hypothesis/linked": outside,
        "runs/linked": outside,
    }
    for name, to in links.items():
        (used / name).symlink_to(to)
    before = files_of(used.parent)
    cleaned(used)
    gone = before - files_of(used.parent)
    assert {name for name in gone if not name.startswith("the workspace/")} == set()
    assert (used / "plugins" / "linked").is_symlink()


def test_clean_takes_other_folders_for_the_environment_and_the_demo(used):
    write(used, "another environment/.installed", ".envs/bin/python", "runs/short demo/last.pt")
    left = cleaned(used, "VENV=.envs", "DEMO_DIR=runs/short demo")
    assert {"another environment/.installed", "runs/demo/last.pt"} <= left
    assert not {".envs/bin/python", "runs/short demo/last.pt"} & left


def test_what_git_ignores_is_tried_here():
    """Each pattern of .gitignore matches a folder in MADE."""
    ignored = [x.strip("/") for x in (ROOT / ".gitignore").read_text(encoding="utf8").split()]
    for pattern in ignored:
        assert any(fnmatch(part, pattern) for name in MADE for part in name.split("/")), pattern
