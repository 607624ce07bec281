"""`make changelog`: CHANGELOG.md from the files in changes/."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / "tools" / "changelog.py"
PREVIEW = """\
## 0.1.0 (2026-05-04)

### All packages

#### Fixed

- `make clean` works.

### det-ops

#### Added

- a rule.
  Its second line.

### det-core

#### Added

- a command.

  - It has an option.

#### Removed

- the option `--old`; it goes with 0.3.

### Several packages

#### Changed

- det-core, det-plugin-fpn: levels are named.
"""
FILES = {
    "clean.fixed.md": "det: `make clean` works.\n",
    "rule.added.md": "det-ops: a rule.\nIts second line.\ndet-core: a command.\n\n- It has an option.\n",
    "old.removed.md": "det-core: the option `--old`; it goes with 0.3.\n",
    "levels.changed.md": "det-core, det-plugin-fpn: levels are named.\n",
}


def changelog(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), "--root", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with packages and four changes."""
    for file in [*ROOT.glob("*/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml")]:
        target = tmp_path / file.relative_to(ROOT)
        target.parent.mkdir(parents=True)
        text = re.sub(r'^version = ".*"', 'version = "0.1.0"', file.read_text(encoding="utf8"), flags=re.MULTILINE)
        target.write_text(text, encoding="utf8")
    (tmp_path / "changes").mkdir()
    for name, text in FILES.items():
        (tmp_path / "changes" / name).write_text(text, encoding="utf8")
    shutil.copy(ROOT / "changes" / "README.md", tmp_path / "changes")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_all_files_that_are_here_have_the_described_form() -> None:
    done = changelog(ROOT, "--check")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) == len(list((ROOT / "changes").glob("*.md"))) - 1


def test_the_preview_changes_nothing(root: Path) -> None:
    before = contents(root)
    done = changelog(root, "--preview", "--date", "2026-05-04")
    assert done.returncode == 0, done.stderr
    assert done.stdout == PREVIEW
    assert contents(root) == before


def test_a_release_writes_the_section_and_removes_the_files(root: Path) -> None:
    older = "# Changes\n\n## 0.0.9 (2026-01-01)\n\n### det-core\n\n#### Added\n\n- everything.\n"
    (root / "CHANGELOG.md").write_text(older, encoding="utf8")
    done = changelog(root, "--date", "2026-05-04")
    assert done.stdout == "CHANGELOG.md: section 0.1.0 with 5 changes; 4 files of changes/ removed\n", done.stderr
    assert [f.name for f in (root / "changes").iterdir()] == ["README.md"]
    text = (root / "CHANGELOG.md").read_text(encoding="utf8")
    assert text == "# Changes\n\n" + PREVIEW + "\n" + older.removeprefix("# Changes\n\n")
    again = changelog(root)
    assert (again.returncode, again.stderr) == (1, "error: changes/ has no changes to release\n")
    (root / "changes" / "more.added.md").write_text("det-core: more.\n", encoding="utf8")
    same = changelog(root)
    assert (same.returncode, (root / "CHANGELOG.md").read_text(encoding="utf8")) == (1, text)
    assert "CHANGELOG.md has a section 0.1.0 already; set the new version first" in same.stderr


BAD = [
    ("notes.txt", b"det-core: x\n", "the name must be WHAT.KIND.md, with small letters and a kind of added, changed,"),
    ("thing.improved.md", b"det-core: x\n", "a kind of added, changed, fixed, removed"),
    ("thing.md", b"det-core: x\n", "the name must be WHAT.KIND.md"),
    ("empty.added.md", b"\n", 'is empty; expected "PACKAGE: text"'),
    ("bare.added.md", b"A new thing.\n", "begins with 'A new thing.'; expected \"PACKAGE: text\" or"),
    ("nothing.added.md", b"det-core: \n", "begins with 'det-core:'"),
    (
        "who.added.md",
        b"det-cor: x\n",
        "there is no package 'det-cor'; allowed: det, det-ops, det-ops-kernels, det-core,",
    ),
    ("pair.added.md", b"det-core, det-plugin-x: x\n", "there is no package 'det-plugin-x'; allowed: "),
    ("twice.added.md", b"det-core, det-core: x\n", "names a package twice: det-core, det-core"),
    (
        "gone.removed.md",
        b"det-core: no more x.\n",
        "does not name the version in which the removal happens, such as 0.3",
    ),
    ("bytes.added.md", b"det-core: \xff\n", "cannot be read as a text in UTF-8 ("),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD, ids=[name for name, _, _ in BAD])
@pytest.mark.parametrize("action", [[], ["--preview"], ["--check"]], ids=["release", "preview", "check"])
def test_a_malformed_file_is_refused_by_name(root: Path, name: str, text: bytes, message: str, action: list) -> None:
    (root / "changes" / name).write_bytes(text)
    before = contents(root)
    done = changelog(root, *action)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: changes/{name}: ")
    assert message in done.stderr
    assert (done.stdout, contents(root)) == ("", before)


def test_all_malformed_files_are_named_at_once(root: Path) -> None:
    for name, text, _ in BAD:
        (root / "changes" / name).write_bytes(text)
    (root / "changes" / "folder").mkdir()
    lines = changelog(root).stderr.splitlines()
    assert {line.split(": ")[1] for line in lines} == {f"changes/{name}" for name, _, _ in BAD} | {"changes/folder"}
