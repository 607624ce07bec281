"""Parts of a data set by the content of image files, and equal images."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from det_core.data.image_content import content_share, equal_files, is_in_part


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """2000 files of other content."""
    for i in range(2000):
        (tmp_path / f"{i}.jpg").write_bytes(random.Random(i).randbytes(20))
    return [str(tmp_path / f"{i}.jpg") for i in range(2000)]


def test_shares_are_evenly_distributed_and_depend_on_content_alone(files: list[str], tmp_path: Path) -> None:
    shares = [content_share(file) for file in files]
    assert 0 <= min(shares) < 0.01
    assert 0.99 < max(shares) < 1
    assert sum(share < 0.2 for share in shares) / 2000 == pytest.approx(0.2, abs=0.03)
    moved = tmp_path / "renamed.png"
    moved.write_bytes(Path(files[7]).read_bytes())
    assert content_share(str(moved)) == shares[7]
    moved.write_bytes(b"changed")
    assert content_share(str(moved)) != shares[7]


def test_parts_divide_the_files(files: list[str]) -> None:
    low, high = ({file for file in files if is_in_part(file, part)} for part in ((0, 0.25), (0.25, 1)))
    assert not low & high
    assert low | high == set(files)
    assert is_in_part(files[0] + "missing", (0, 0.1))  # what is wrong with it is found when it is opened


def test_equal_files_are_paired(tmp_path: Path) -> None:
    texts = {"a": "one", "b": "two", "c": "long", "d": "two", "e": "six", "f": "one"}
    paths = {name: str(tmp_path / name) for name in (*texts, "missing")}
    for name, text in texts.items():
        Path(paths[name]).write_text(text)
    ours, theirs = [paths[n] for n in ("a", "b", "c")], [paths[n] for n in ("d", "e", "f", "missing")]
    assert equal_files(ours, theirs) == [(paths["b"], paths["d"]), (paths["a"], paths["f"])]


def test_only_files_of_equal_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("a", "1"), ("b", "22")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("det_core.data.image_content.content_digest", None)
    assert equal_files([str(tmp_path / "a")], [str(tmp_path / "b")]) == []


def test_a_file_is_read_once_unless_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    first = content_share(str(path))
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", lambda *_: pytest.fail("the file was read again"))
        assert content_share(str(path)) == first
    path.write_bytes(b"other")
    assert content_share(str(path)) != first
