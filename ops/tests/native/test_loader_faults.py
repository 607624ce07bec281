"""Missing and broken tools: the messages, and the single warning."""

from __future__ import annotations

import os
import re
import sys
import warnings

import pytest

from det_ops import native
from det_ops.native import loader, probe, run

GET = "install g++ (Debian, Ubuntu: apt install g++; conda: cxx-compiler; macOS: xcode-select --install) or set CXX"


def _failing(library, reason, remedy):
    """Both `load` and `peek` give this reason, and nothing is raised."""
    for outcome in (native.peek(library), native.load(library)):
        assert not outcome.loaded
        assert re.fullmatch(reason, outcome.reason), outcome.reason
        assert remedy in outcome.remedy
        assert outcome.summary() == f"cannot build: {outcome.reason}; {outcome.remedy}"


def test_no_compiler(make, cache_folder, bare_path):
    bare_path("ninja")
    _failing(make(), r"there is no C\+\+ compiler: none of c\+\+, g\+\+, clang\+\+ is on PATH", GET)


def test_cxx_is_no_program(make, cache_folder, monkeypatch):
    monkeypatch.setenv("CXX", "/no/such/g++")
    _failing(make(), r"CXX is '/no/such/g\+\+', which is not a program", "correct or unset CXX")


def test_cxx_is_no_command(make, cache_folder, monkeypatch):
    monkeypatch.setenv("CXX", "g++ 'open")
    _failing(make(), r"""CXX is "g\+\+ 'open", which is not a command \(No closing quotation\)""", "unset CXX")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("echo cannot run >&2; exit 1", r"the C\+\+ compiler fails \(/.*/cxx: cannot run\)"),
        ("exit 7", r"the C\+\+ compiler fails \(/.*/cxx: exit code 7\)"),
        (
            '[ "$1" = --version ] && echo 1.0 && exit 0\necho no linker >&2; exit 1',
            r"the C\+\+ compiler, on a trivial program, fails \(/.*/cxx: no linker\)",
        ),
        ("exec sleep 30", r"the C\+\+ compiler hangs \(/.*/cxx: no answer in 0.3 seconds\)"),
    ],
)
def test_a_broken_compiler(text, reason, make, cache_folder, tools, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_TIMEOUT", 0.3)
    monkeypatch.setenv("CXX", str(tools["script"](tmp_path / "cxx", f"{text}")))
    _failing(make(), reason, GET)


def test_a_compiler_for_another_machine(make, cache_folder, tmp_path, monkeypatch):
    program = tmp_path / "cxx"
    program.write_bytes(b"\x7fELF not really")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    _failing(make(), rf"the C\+\+ compiler does not run \({program}: Exec format error\)", GET)


def test_no_ninja(make, cache_folder, bare_path, tools, monkeypatch):
    tools["needs_compiler"]()
    bare_path("c++", "g++", "clang++", "as", "ld")
    monkeypatch.setitem(sys.modules, "ninja", None)
    _failing(make(), "ninja is missing: neither on PATH nor as a Python package", "pip install ninja")


def test_ninja_does_not_run(make, cache_folder, bare_path, tools, monkeypatch):
    tools["needs_compiler"]()
    folder = bare_path("c++", "g++", "clang++", "as", "ld")
    ninja = tools["script"](folder / "ninja", "exit 1")
    monkeypatch.setitem(sys.modules, "ninja", None)
    _failing(make(), rf"ninja does not run \({ninja}\)", "pip install --force-reinstall ninja")


def test_no_temporary_folder(make, cache_folder, tools, monkeypatch):
    tools["needs_compiler"]()

    def none(**options):
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(probe.tempfile, "TemporaryDirectory", none)
    reason = r"there is no usable temporary folder \(no usable temporary directory\)"
    _failing(make(), reason, "set TMPDIR to a folder")


def test_windows(make, cache_folder, monkeypatch):
    monkeypatch.setattr(probe.sys, "platform", "win32")
    monkeypatch.setattr(loader.roots, "listed", lambda settings: [])
    _failing(make(), "building on Windows is not supported", "use Linux, WSL or macOS")


def test_a_python_without_a_program(make, cache_folder, monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    reason = "sys.executable is empty"
    _failing(make(), reason, "start Python by its command, `python`")


def test_an_incomplete_installation(cache_folder):
    _failing(
        native.NativeLibrary("nothing", ()), "its sources are missing", "reinstall the package that provides nothing"
    )


def test_no_folder_can_be_written_to(make, builds, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DET_OPS_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    outcome = native.load(make())
    assert outcome.reason.startswith("no folder for built libraries is writable (")
    assert f"{tmp_path}/file/cache: Not a directory" in outcome.reason
    assert f"{tmp_path}/file/.cache/det-ops: Not a directory" in outcome.reason
    assert f"{tmp_path}/gone/det-ops-{os.getuid()}: No such file or directory" in outcome.reason
    assert outcome.remedy == "set DET_OPS_CACHE to a writable folder"


def test_one_warning_says_reason_cost_and_remedy(make, cache_folder, bare_path):
    bare_path()
    outcome = native.load(make(name="warned"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            native.warn_once(outcome)
            native.warn_once(native.Outcome("warned", reason="another"))
    assert [w.category for w in caught] == [RuntimeWarning]
    assert str(caught[0].message) == outcome.warning_text() == (
        "the native library warned is not in use: there is no C++ compiler: none of c++, g++, clang++ is on PATH. "
        "Cost: operators run in torchvision or plain PyTorch, several to several hundred times "
        f"slower. Remedy: {GET}."
    )  # fmt: skip


def test_required_without_a_log(make, cache_folder, monkeypatch, bare_path):
    bare_path()
    monkeypatch.setenv("DET_OPS_NATIVE", "require")
    with pytest.raises(native.NativeError, match=r"is on PATH\. Remedy: install g\+\+ .* or set CXX\.$"):
        native.load(make())
