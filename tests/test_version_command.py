"""`make version`: one version in all places, and how it is set."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / "tools" / "version.py"
PROJECTS = sorted([*ROOT.glob("*/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml")])
EXAMPLES = sorted(ROOT.glob("examples/*/pyproject.toml"))


def version(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), "--root", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def project(file: Path) -> dict:
    return tomllib.loads(file.read_text(encoding="utf8"))["project"]


NOW = project(ROOT / "core" / "pyproject.toml")["version"]
MAJOR, MINOR, _ = map(int, NOW.split("."))
NEXT = f"{MAJOR + 1}.7.3"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the files that contain the version, and of one that contains a like text."""
    copied = [*PROJECTS, *EXAMPLES, ROOT / "CITATION.cff", ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    copied += [file for p in PROJECTS for file in (p.parent / "src").glob("*/__init__.py")]
    for file in copied:
        target = tmp_path / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return tmp_path


def own_requirements(file: Path) -> list[str]:
    declared = tomllib.loads(file.read_text(encoding="utf8"))
    found = [*declared["project"]["dependencies"], *declared["build-system"]["requires"]]
    return [r for r in found if r.startswith("det-")]


def check_all(root: Path, version: str, lower: str) -> None:
    """Every place, read with other means than the tool's."""
    for file in PROJECTS:
        here = root / file.relative_to(ROOT)
        assert project(here)["version"] == version
        (init,) = (here.parent / "src").glob("*/__init__.py")
        assert re.findall(r'^__version__ = "(.*)"$', init.read_text(encoding="utf8"), re.MULTILINE) == [version]
    kernels = own_requirements(root / "kernels" / "pyproject.toml")
    assert kernels == [f"det-ops=={version}"] * 2
    for file in [*PROJECTS, *EXAMPLES]:
        if file.parent.name != "kernels":
            ranges = {re.sub(r"^[\w-]+", "", r) for r in own_requirements(root / file.relative_to(ROOT))}
            assert ranges <= {lower}, file
    assert project(root / "core" / "pyproject.toml")["dependencies"].count(f"det-ops{lower}") == 1
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf8"))
    assert citation["version"] == version


def test_all_places_agree() -> None:
    done = version(ROOT)
    assert (done.returncode, done.stdout) == (0, f"{NOW}\n"), done.stderr
    check_all(ROOT, NOW, f">={MAJOR}.{MINOR},<{MAJOR + 1}")


def test_it_changes_all_places_and_nothing_else(root: Path) -> None:
    constraints = (root / "constraints.txt").read_bytes()
    workspace = (root / "pyproject.toml").read_bytes()
    done = version(root, NEXT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{NOW} -> {NEXT}: {2 * len(PROJECTS) + len(EXAMPLES) + 1} files changed\n")
    check_all(root, NEXT, f">={MAJOR + 1}.7,<{MAJOR + 2}")
    assert version(root).stdout == f"{NEXT}\n"
    assert (root / "constraints.txt").read_bytes() == constraints
    assert (root / "pyproject.toml").read_bytes() == workspace
    for example in EXAMPLES:  # a stranger's package has a version of its own
        assert project(root / example.relative_to(ROOT))["version"] == project(example)["version"]
    for file in PROJECTS:  # the other lines are the same
        before, after = (x.read_text(encoding="utf8").splitlines() for x in (file, root / file.relative_to(ROOT)))
        assert len(before) == len(after)
        changed = [a for a, b in zip(before, after, strict=True) if a != b]
        assert all("version" in line or "det-" in line for line in changed)
    assert version(root, NEXT).stdout == f"{NEXT} -> {NEXT}: 0 files changed\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.2", "version '1.2': expected three numbers X.Y.Z without leading zeros, such as 0.2.0"),
        ("v1.2.3", "expected three numbers X.Y.Z"),
        ("1.02.3", "expected three numbers X.Y.Z without leading zeros"),
        ("9.9.9rc1", "expected three numbers X.Y.Z"),
        ("9.9.9\n", "expected three numbers X.Y.Z"),
        ("0.0.9", f"version 0.0.9 is lower than the present version {NOW}; choose a higher one"),
    ],
)
def test_a_bad_or_lower_version_is_refused(root: Path, text: str, message: str) -> None:
    before = {f: f.read_bytes() for f in root.rglob("*") if f.is_file()}
    done = version(root, text)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert {f: f.read_bytes() for f in root.rglob("*") if f.is_file()} == before


def rewrite(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf8")


def test_every_place_that_differs_is_named(root: Path) -> None:
    rewrite(root / "ops" / "pyproject.toml", f'version = "{NOW}"', 'version = "9.9.9"')
    rewrite(root / "CITATION.cff", f"version: {NOW}", "version: 9.9.8")
    rewrite(root / "plugins" / "htc" / "pyproject.toml", "det-core>=", "det-core>=9")
    rewrite(root / "core" / "src" / "det_core" / "__init__.py", f'__version__ = "{NOW}"', '__version__ = "9.9.7"')
    done = version(root)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    for line, (file, found) in zip(
        lines,
        [
            ("ops/pyproject.toml", f"version is 9.9.9, expected {NOW}"),
            ("core/src/det_core/__init__.py", f"__version__ is 9.9.7, expected {NOW}"),
            ("plugins/htc/pyproject.toml", "requirement of another package is >=9"),
            ("CITATION.cff", f"version is 9.9.8, expected {NOW}"),
            ("set all of them", f"make version VERSION={NOW}"),
        ],
        strict=False,
    ):
        assert file in line
        assert found in line
    assert version(root, NOW).returncode == 0
    check_all(root, NOW, f">={MAJOR}.{MINOR},<{MAJOR + 1}")


def test_a_place_that_is_gone_stops_it_before_anything_is_written(root: Path) -> None:
    rewrite(root / "core" / "src" / "det_core" / "__init__.py", f'__version__ = "{NOW}"', "")
    before = {f: f.read_bytes() for f in root.rglob("*") if f.is_file()}
    done = version(root, NEXT)
    assert done.returncode == 1
    assert "det_core/__init__.py: __version__: found 0 times, expected 1" in done.stderr
    assert {f: f.read_bytes() for f in root.rglob("*") if f.is_file()} == before


def test_the_address_has_one_place_and_reaches_all_packages(root: Path) -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["tool"]["det"] == {"url": ""}
    before = {f: f.read_bytes() for f in root.rglob("*") if f.is_file()}
    rewrite(root / "pyproject.toml", 'url = ""', 'url = "https://example.org/det"')
    done = version(root)
    assert done.returncode == 1
    assert (
        "[project.urls] has nothing, but url of [tool.det] in pyproject.toml is 'https://example.org/det'"
        in done.stderr
    )
    assert version(root, NOW).returncode == 0
    for file in PROJECTS:
        assert project(root / file.relative_to(ROOT))["urls"] == {"Repository": "https://example.org/det"}
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf8"))
    assert citation["repository-code"] == "https://example.org/det"
    assert version(root).returncode == 0
    rewrite(root / "pyproject.toml", 'url = "https://example.org/det"', 'url = ""')
    assert version(root, NOW).returncode == 0
    assert {f: f.read_bytes() for f in root.rglob("*") if f.is_file()} == before


def test_a_new_plugin_requires_the_present_version(tmp_path: Path) -> None:
    from det_core.cli.new_plugin import write_plugin

    package = write_plugin("mine", tmp_path)
    (core, *_) = own_requirements(package.folder / "pyproject.toml")
    assert core == f"det-core>={MAJOR}.{MINOR},<{MAJOR + 1}"
