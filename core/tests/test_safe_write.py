"""Files appear whole or not at all, and an error leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from det_core.safe_write import replacing


def write_half(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("full")


def test_a_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("all")
        assert not path.exists()
    assert path.read_text() == "all"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_an_error_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"):
        write_half(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_is_replaced_rather_than_followed(tmp_path: Path) -> None:
    precious, path = tmp_path / "precious", tmp_path / "a.txt"
    precious.write_text("mine")
    path.symlink_to(precious)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert (precious.read_text(), path.read_text()) == ("mine", "new")
