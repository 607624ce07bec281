"""Files appear whole or not at all; an error leaves nothing behind and names the path, the reason and what is kept."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
from safetensors import SafetensorError

from det_core.safe_write import WriteError, cause, replacing

FULL = OSError(errno.ENOSPC, "No space left on device")


def write_half(path: Path, error: Exception = FULL) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise error


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
    message = f"{path}: cannot be written (No space left on device); the earlier file is kept"
    with pytest.raises(WriteError, match=f"^{re.escape(message)}$"):
        write_half(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_of_a_new_file_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(WriteError, match=r"a\.txt: cannot be written \(I/O error: full\); no file is left$"):
        write_half(path, SafetensorError("I/O error: full"))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/a\.txt: cannot be written \((Not a directory|File exists)\)"):
        write_half(tmp_path / "file" / "a.txt")


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "a.txt", ZeroDivisionError())
    assert not list(tmp_path.iterdir())


def test_the_cause_is_what_the_system_said() -> None:
    """torch raises another error while it cleans up."""
    later = RuntimeError("unexpected pos 64 vs 0\nmore")
    assert cause(later) == "unexpected pos 64 vs 0"
    later.__context__ = FULL
    assert cause(later) == "No space left on device"


def test_a_link_is_replaced_rather_than_followed(tmp_path: Path) -> None:
    precious, path = tmp_path / "precious", tmp_path / "a.txt"
    precious.write_text("mine")
    path.symlink_to(precious)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert (precious.read_text(), path.read_text()) == ("mine", "new")
