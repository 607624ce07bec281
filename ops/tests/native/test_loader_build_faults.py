"""Builds that fail, hang, are interrupted or cannot be moved into place: what is recorded, and the messages."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
import torch

from det_ops import native
from det_ops.native import builder, cache, loader, lock, staging


def test_a_compile_error_is_remembered_and_retried_when_asked(make, builds, cache_folder, monkeypatch):
    library = make("int answer() { return nonsense; }\n")
    source, root = library.sources[0], cache_folder
    first = native.load(library)
    assert re.fullmatch(rf"building {library.name} failed: {source}:1:.* error: .*nonsense.*", first.reason)
    assert "nonsense" in first.log
    log = next(root.glob("*.failed.log"))
    assert first.remedy == f"read {log}; then set DET_OPS_RETRY=1 or run `python -m det_ops build` to try again"
    assert log.read_text().startswith(first.reason)
    assert len(builds()) == 1
    monkeypatch.setattr(loader, "_answers", {})
    second = native.load(library)
    assert (second.reason, second.remedy, second.log) == (first.reason, first.remedy, first.log)
    assert native.peek(library).reason == first.reason
    assert len(builds()) == 1  # remembered
    monkeypatch.setattr(loader, "_answers", {})
    monkeypatch.setenv("DET_OPS_RETRY", "1")
    assert native.load(library).reason == first.reason
    assert len(builds()) == 2
    monkeypatch.delenv("DET_OPS_RETRY")
    assert native.build(library).reason == first.reason
    assert len(builds()) == 3  # asked for by hand: always tried
    assert [p.name for p in root.iterdir() if p.name.startswith(".")] == []


def test_a_build_by_hand_repairs_what_load_has_answered(make, builds, cache_folder, tools, tmp_path, monkeypatch):
    library, switch = make(), tmp_path / "repaired"
    text = f'case "$*" in *objects*) [ -e {switch} ] || exit 1;; esac\nexec c++ "$@"'
    monkeypatch.setenv("CXX", str(tools["script"](tmp_path / "cxx", text)))
    assert not native.load(library).loaded
    switch.touch()
    assert not native.load(library).loaded  # remembered by this process
    assert native.build(library).path
    assert native.load(library).loaded
    assert list(cache_folder.glob("*.failed.log")) == []


def test_a_failure_that_others_met_meanwhile_counts_even_when_retrying(tmp_path):
    cache.write_failure(tmp_path, "x", "reason", "log")
    when = (tmp_path / "x.failed.log").stat().st_mtime
    builder.heed_failure(tmp_path, "x", retry=True, asked=when + 1)
    with pytest.raises(builder.CannotBuild, match="reason"):
        builder.heed_failure(tmp_path, "x", retry=True, asked=when - 1)


@pytest.mark.parametrize(
    ("text", "reason", "remedy"),
    [
        ("print('c++: fatal error: Killed signal terminated program cc1plus'); sys.exit(3)",
         "the build was interrupted (Killed signal)", "check memory and disk space, then try again"),
        ("print('No space left on device'); sys.exit(3)",
         "the build was interrupted (No space left on device)", "check memory and disk space, then try again"),
        ("import os; os.kill(os.getpid(), 9)", "the build was interrupted (exit code -9)", "check memory"),
        ("sys.exit(1)", "the build was interrupted (exit code 1)", "check memory"),
        ("print('x.so: failed to map segment from shared object'); sys.exit(3)",
         "{root} does not allow executables",
         "set DET_OPS_CACHE to a folder on a file system that is not mounted noexec"),
        ("print('torch.utils.cpp_extension cannot be imported: setuptools'); sys.exit(4)",
         "torch.utils.cpp_extension cannot be imported: setuptools", "pip install --upgrade setuptools"),
    ],
)  # fmt: skip
def test_a_failure_of_the_day_is_not_remembered(text, reason, remedy, make, builds, cache_folder):
    builder.CHILD.write_text(f"import sys\n{text}\n")
    outcome = native.load(make())
    assert outcome.reason == reason.format(root=cache_folder)
    assert outcome.remedy.startswith(remedy)
    assert list(cache_folder.glob("*.failed.log")) == []


def test_a_failure_without_a_line_of_error_shows_the_last(make, builds, cache_folder):
    builder.CHILD.write_text("import sys\nprint('one'); print('two'); sys.exit(3)\n")
    library = make()
    assert native.load(library).reason == f"building {library.name} failed: two"


def test_an_entry_that_cannot_be_put_in_place(make, builds, cache_folder, monkeypatch):
    monkeypatch.setattr(cache, "write_manifest", lambda *arguments: None)
    outcome = native.load(make())
    assert re.fullmatch(rf"{cache_folder}/demo.* could not be moved into place", outcome.reason)
    assert outcome.remedy == "set DET_OPS_CACHE to another folder"


def test_a_folder_that_fails_while_building(make, builds, cache_folder, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staging, "fill", full)
    outcome = native.load(make())
    assert outcome.reason == f"{cache_folder}: No space left on device"
    assert outcome.remedy == "set DET_OPS_CACHE to another folder"


def test_a_library_that_does_not_load_here(make, builds, cache_folder, monkeypatch):
    def broken(path):
        raise OSError("undefined symbol: x")

    monkeypatch.setattr(torch.ops, "load_library", broken)
    outcome = native.load(make())
    assert re.fullmatch(r"/.*\.so does not load: undefined symbol: x", outcome.reason)
    assert outcome.remedy == "rebuild it for this machine: `python -m det_ops build --force`"


def test_the_lock_is_given_up_after_a_time(make, builds, cache_folder, monkeypatch, capfd):
    library = make()
    cache_folder.mkdir()
    monkeypatch.setenv("DET_OPS_LOCK_TIMEOUT", "0.4")
    monkeypatch.setattr(lock, "SAY_AFTER", 0.1)
    with lock.held(cache_folder / f"{library.name}.lock", "x", 1.0) as locked:
        assert locked
        outcome = native.load(library)
    who = f"process {os.getpid()} on {os.uname().nodename}, which builds {library.name}"
    assert outcome.reason == f"waited 0.4 seconds for {who}"
    assert outcome.remedy == "end that process if it hangs, or set DET_OPS_LOCK_TIMEOUT to more seconds"
    assert capfd.readouterr().err == f"det-ops: waiting for {who} (up to 0.4 seconds)\n"


def test_a_left_over_lock_file_means_nothing(make, builds, cache_folder):
    library = make()
    cache_folder.mkdir()
    (cache_folder / f"{library.name}.lock").write_text("process 1 on nowhere")
    assert native.load(library).loaded


def test_building_continues_where_nothing_can_be_locked(make, builds, cache_folder, monkeypatch):
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert native.load(make()).loaded


def test_a_long_build_is_announced(make, builds, cache_folder, monkeypatch, capfd):
    monkeypatch.setattr(lock, "SAY_AFTER", 0.01)
    library = make()
    assert native.load(library).loaded
    assert capfd.readouterr().err == f"det-ops: building {library.name}, once per machine\n"


def test_verbose_shows_the_compiler_and_what_is_loaded(make, builds, cache_folder, monkeypatch, capfd):
    monkeypatch.setenv("DET_OPS_VERBOSE", "1")
    library = make("#warning look here\nint answer() { return 1; }\n")
    outcome = native.load(library)
    said = capfd.readouterr().err
    assert "look here" in said
    assert str(library.sources[0]) in said  # where the user has it, not where it was built
    assert f"det-ops: {library.name}: loaded from {outcome.path}, built in {outcome.built_seconds:.1f} seconds" in said


def test_required_raises_with_the_log_each_time(make, builds, cache_folder, monkeypatch):
    monkeypatch.setenv("DET_OPS_NATIVE", "require")
    library = make("int answer() { return nonsense; }\n")
    for _ in range(2):
        with pytest.raises(native.NativeError) as caught:
            native.load(library)
        text = str(caught.value)
        start = f"DET_OPS_NATIVE=require, but the native library {library.name} cannot be loaded: building "
        assert text.startswith(start)
        assert "Remedy: read /" in text
        assert "The compiler's last lines:" in text
        assert text.count("nonsense") > 1
    assert len(builds()) == 1
    assert native.load(make()).loaded


def test_ctrl_c_ends_the_compilers(make, cache_folder, tools, tmp_path, monkeypatch):
    tools["needs_compiler"]()
    pid = tmp_path / "pid"
    text = f'case "$*" in *sources*) echo $$ > {pid}; sleep 60;; esac\nexec c++ "$@"'
    monkeypatch.setenv("CXX", str(tools["script"](tmp_path / "cxx", text)))

    def interrupt(text):
        _until(lambda: pid.exists() and pid.read_text())
        raise KeyboardInterrupt

    monkeypatch.setattr(builder, "say", interrupt)
    monkeypatch.setattr(lock, "SAY_AFTER", 0.1)
    library = make()
    with pytest.raises(KeyboardInterrupt):
        native.load(library)
    _until(lambda: not _alive(int(pid.read_text())))
    assert [p.name for p in cache_folder.iterdir()] == [f"{library.name}.lock"]


def _until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("memory", "cores", "expected"), [(64e9, 8, 8), (8e9, 8, 4), (1e9, 8, 1)])
def test_as_many_compilers_as_cores_and_memory_allow(memory, cores, expected, monkeypatch):
    monkeypatch.setattr(staging, "_memory", lambda: int(memory))
    monkeypatch.setattr(staging.sys, "platform", "darwin")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert staging.jobs() == expected


def test_the_memory_is_known():
    assert staging._memory() > 100_000_000
