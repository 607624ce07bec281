"""The folders of libraries: order, trust, read-only ones, damage, cleaning."""

from __future__ import annotations

import os
import re
import stat
import sys

import pytest

from det_ops import native
from det_ops.native import cache, lock, roots, settings


def _read_only(monkeypatch, folder):
    """Permission bits do not restrict root, so the write test is made to fail."""
    was = roots._try
    monkeypatch.setattr(roots, "_try", lambda root: "Read-only file system" if root == folder else was(root))


def test_a_read_only_shared_cache_serves_without_tools(make, builds, cache_folder, monkeypatch, bare_path):
    library = make()
    path = native.build(library).path
    _read_only(monkeypatch, cache_folder)
    bare_path()
    monkeypatch.setitem(sys.modules, "ninja", None)
    assert native.load(library).path == path


def test_what_a_read_only_cache_lacks_is_built_in_the_next(make, builds, cache_folder, tmp_path, monkeypatch, forget):
    old, new = make(), make()
    native.build(old)
    _read_only(monkeypatch, cache_folder)
    outcome = native.load(new)
    assert outcome.loaded
    assert outcome.path.is_relative_to(tmp_path / "home" / ".cache" / "det-ops")
    assert native.load(old).path.is_relative_to(cache_folder)
    forget()
    assert native.load(new).origin == "cache"


def test_the_order_of_the_folders(tmp_path, monkeypatch):
    home, private = tmp_path / "home", tmp_path / "tmp" / f"det-ops-{os.getuid()}"
    assert roots.listed(settings.read()) == [home / ".cache" / "det-ops", private]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("DET_OPS_CACHE", str(tmp_path / "mine"))
    assert roots.listed(settings.read()) == [tmp_path / "mine", tmp_path / "xdg" / "det-ops", private]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert roots.listed(settings.read())[1] == home / "Library" / "Caches" / "det-ops"


def test_without_a_home_the_private_temporary_folder_serves(make, builds, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    outcome = native.load(make())
    folder = tmp_path / "tmp" / f"det-ops-{os.getuid()}"
    assert outcome.loaded
    assert outcome.path.is_relative_to(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("owner", "belongs to user {uid}, not to you"),
        ("mode", r"is open to other users \(mode 0755, expected 0700\)"),
        ("link", "is not a folder"),
    ],
)
def test_a_temporary_folder_of_others_is_refused(case, words, make, builds, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    library = make()
    path = native.build(library).path
    folder = path.parents[1]
    if case == "owner":
        monkeypatch.setattr(roots, "_user", lambda: 4242)
        folder = folder.rename(folder.with_name("det-ops-4242"))
    elif case == "mode":
        folder.chmod(0o755)
    else:
        moved = folder.rename(tmp_path / "moved")
        folder.symlink_to(moved)
    assert roots.searchable(settings.read()) == []  # what lies there is not loaded either
    outcome = native.load(library)
    assert not outcome.loaded
    assert outcome.reason.startswith("no folder for built libraries is writable (")
    assert f"{folder}: " in outcome.reason
    assert outcome.remedy == "set DET_OPS_CACHE to a writable folder"
    assert re.search(words.format(uid=os.getuid()), outcome.reason)


def test_no_home_and_a_relative_temporary_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("TMPDIR", "relative")
    assert roots.listed(settings.read()) == []


@pytest.mark.parametrize("damage", ["truncate", "manifest", "missing", "other"])
def test_a_damaged_entry_is_no_entry(damage, make, builds, cache_folder):
    library = make()
    path = native.build(library).path
    manifest = path.with_name("manifest.json")
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "manifest":
        manifest.write_text('{"library": ')
    elif damage == "missing":
        path.unlink()
    else:
        manifest.write_text(manifest.read_text().replace(path.name, "../../x.so"))
    outcome = native.load(library)
    assert (outcome.loaded, outcome.origin) == (True, "build")
    assert len(builds()) == 2


def test_an_entry_that_does_not_load_is_built_anew(make, builds, cache_folder):
    library = make()
    path = native.build(library).path
    path.write_bytes(b"\0" * path.stat().st_size)
    outcome = native.load(library)
    assert (outcome.loaded, outcome.origin, outcome.path) == (True, "build", path)
    assert f"{path} does not load: " in outcome.note


def test_clean_removes_what_was_built_and_nothing_else(make, builds, cache_folder):
    library = make()
    path = native.build(library).path
    cache.write_failure(cache_folder, path.parent.name, "reason", "log")
    (cache_folder / "mine.txt").write_text("")
    (cache_folder / "folder").mkdir()
    (cache_folder / ".building-x-1234").mkdir()
    old = cache_folder / ".building-x-5678"
    old.mkdir()
    os.utime(old, (0, 0))
    gone = cache.clean(settings.read())
    assert set(gone) == {path.parent, cache.failure_path(cache_folder, path.parent.name), old}
    assert {p.name for p in cache_folder.iterdir()} == {
        "mine.txt",
        "folder",
        ".building-x-1234",
        f"{library.name}.lock",
    }


def test_only_old_leftovers_go_where_nothing_can_be_locked(make, builds, cache_folder, monkeypatch):
    library = make()
    young, old = (cache_folder / f".building-{library.name}-{age}" for age in ("young", "old"))
    young.mkdir(parents=True)
    old.mkdir()
    os.utime(old, (0, 0))
    monkeypatch.setattr(lock, "_attempt", lambda descriptor: False)
    assert native.load(library).loaded
    assert young.exists()
    assert not old.exists()
