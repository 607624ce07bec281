"""Libraries that another user could have written are not loaded: rebuilt elsewhere, and the reason is printed."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from det_ops import native
from det_ops.native import cache, lock, trust
from det_ops.native.trust import distrust

pytestmark = pytest.mark.skipif(os.name == "nt", reason="permission bits say nothing on Windows")


@pytest.fixture
def foreign(monkeypatch):
    """Gives a path to another user: really, if root runs the tests, else by telling who "we" are."""

    def give(path: Path) -> None:
        if os.getuid() == 0:
            os.chown(path, 12345, 12345)
        else:
            monkeypatch.setattr(trust.os, "getuid", lambda: 12345)

    return give


def test_our_own_files_are_trusted(tmp_path):
    file = tmp_path / "library.so"
    file.write_text("")
    assert distrust(file) == ""
    assert distrust(tmp_path) == ""


def test_a_file_of_another_user_is_not(tmp_path, foreign):
    file = tmp_path / "library.so"
    file.write_text("")
    foreign(file)
    assert "belongs to user" in distrust(file)


@pytest.mark.parametrize("which", ["file", "folder", "above"])
def test_what_others_can_write_is_not(tmp_path, which):
    file = tmp_path / "above" / "folder" / "library.so"
    file.parent.mkdir(parents=True)
    file.write_text("")
    path = {"file": file, "folder": file.parent, "above": file.parents[1]}[which]
    path.chmod(0o757)
    assert distrust(file) == f"{path} can be written by other users (mode 0757)"


def test_a_folder_with_the_sticky_bit_may_be_open_to_all(tmp_path):
    file = tmp_path / "open" / "mine" / "library.so"
    file.parent.mkdir(parents=True)
    file.write_text("")
    (tmp_path / "open").chmod(0o1777)
    assert distrust(file) == ""
    (tmp_path / "open").chmod(0o777)
    assert "can be written" in distrust(file)


def test_a_group_is_trusted_if_only_we_are_in_it(tmp_path, monkeypatch):
    file = tmp_path / "library.so"
    file.write_text("")
    file.chmod(0o664)
    monkeypatch.setattr(trust, "_private_group", lambda group: True)
    assert distrust(file) == ""
    monkeypatch.setattr(trust, "_private_group", lambda group: False)
    assert "can be written by other users (mode 0664)" in distrust(file)


def test_a_link_is_judged_by_what_it_leads_to(tmp_path, foreign):
    real, link = tmp_path / "real.so", tmp_path / "link.so"
    real.write_text("")
    link.symlink_to(real)
    foreign(real)
    assert "belongs to user" in distrust(link)
    assert "cannot be checked" in distrust(tmp_path / "nothing")


@pytest.mark.parametrize("where", ["DET_OPS_CACHE", "DET_OPS_PREBUILT", "XDG_CACHE_HOME"])
def test_a_library_that_others_can_write_is_built_anew(where, make, builds, tmp_path, monkeypatch, forget, capfd):
    folder, elsewhere = tmp_path / "shared", tmp_path / "elsewhere"
    monkeypatch.setenv("DET_OPS_CACHE", str(folder))
    library = make()
    first = native.build(library)
    assert first.path is not None
    monkeypatch.delenv("DET_OPS_CACHE")
    root = folder
    if where == "XDG_CACHE_HOME":
        root = tmp_path / "xdg" / "det-ops"
        root.parent.mkdir()
        folder.rename(root)
        monkeypatch.setenv(where, str(root.parent))
    else:
        monkeypatch.setenv(where, str(folder))
    if where != "DET_OPS_CACHE":
        monkeypatch.setenv("DET_OPS_CACHE", str(elsewhere))
    root.chmod(0o777)
    forget()
    outcome = native.load(library)
    assert outcome.loaded
    assert outcome.origin == "build"
    assert root not in Path(str(outcome.path)).parents
    assert (
        f"is not loaded: {root} can be written by other users (mode 0777); building another" in capfd.readouterr().err
    )
    assert len(builds()) == 2


def test_a_folder_that_others_can_write_is_no_place_to_build(make, builds, cache_folder, tmp_path):
    cache_folder.mkdir()
    cache_folder.chmod(0o777)
    outcome = native.build(make())
    assert cache_folder not in Path(str(outcome.path)).parents


def test_a_link_in_the_place_of_the_lock_is_not_followed(make, builds, cache_folder, tmp_path):
    cache_folder.mkdir()
    library, victim = make(), tmp_path / "victim"
    victim.write_text("precious")
    (cache_folder / f"{library.name}.lock").symlink_to(victim)
    outcome = native.build(library)
    assert not outcome.loaded
    assert outcome.reason
    assert victim.read_text() == "precious"
    with pytest.raises(OSError), lock.held(cache_folder / f"{library.name}.lock", "a library", 1.0):
        pass


def test_a_compiler_that_hangs_is_ended(make, builds, cache_folder, tmp_path, monkeypatch, tools):
    pids = tmp_path / "pids"
    text = f'case "$*" in *sources*) echo $$ >> {pids}; sleep 600;; esac\nexec c++ "$@"'
    monkeypatch.setenv("CXX", str(tools["script"](tmp_path / "bin" / "c++", text)))
    monkeypatch.setenv("DET_OPS_BUILD_TIMEOUT", "1.5")
    outcome = native.load(make())
    assert not outcome.loaded
    assert "took more than 1.5 seconds" in outcome.reason
    assert "DET_OPS_BUILD_TIMEOUT" in outcome.remedy
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() and _runs(pid) for pid in pids.read_text().split()):
        assert time.monotonic() < deadline, "the compiler still runs"
        time.sleep(0.05)
    assert not list(cache_folder.glob(".building-*"))
    assert not list(cache_folder.glob("*.failed.log"))


def _runs(pid: str) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_mode_and_owner_of_new_entries(make, builds, cache_folder):
    outcome = native.build(make())
    assert distrust(Path(str(outcome.path))) == ""
    assert stat.S_IMODE(Path(str(outcome.path)).stat().st_mode) & 0o002 == 0
    assert cache.read_entry(Path(str(outcome.path)).parent) is not None
