"""Where a library is found, and what a cache hit does not do."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from det_ops import native
from det_ops.native import cache, probe

HIT = """
import json, sys
from pathlib import Path
import torch
from det_ops import native
library = native.NativeLibrary(sys.argv[1], (Path(sys.argv[2]),), (Path(sys.argv[3]),))
events = []
def watch(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.mkdir", "os.rename"):
        events.append(event)
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & 3:
        events.append(f"write {arguments[0]}")
sys.addaudithook(watch)
outcome = native.load(library)
same = native.load(library) is outcome
print(json.dumps({"loaded": outcome.loaded, "origin": outcome.origin, "events": events, "reason": outcome.reason,
                  "cpp_extension": "torch.utils.cpp_extension" in sys.modules, "same": same}))
"""


def test_built_once_then_found(make, builds, cache_folder, forget):
    library = make()
    first = native.load(library)
    assert first.loaded, first.reason
    assert first.origin == "build"
    assert first.built_seconds is not None
    assert native.load(library) is first  # one load per process
    forget()
    second = native.load(library)
    assert (second.loaded, second.origin, second.built_seconds, second.path) == (True, "cache", None, first.path)
    assert builds() == [library.name]
    assert {p.name for p in first.path.parent.iterdir()} == {f"{library.name}.so", "manifest.json", "build.log"}
    assert [p.name for p in cache_folder.iterdir() if p.name.startswith(".")] == []


def test_a_hit_starts_no_process_writes_nothing_and_imports_no_builder(make, builds, cache_folder, tools, bare_path):
    library = make()
    assert native.build(library).path
    files = (str(library.sources[0]), str(library.headers[0]))
    path_with_compiler = os.environ["PATH"]
    for path in (path_with_compiler, str(cache_folder)):  # the second has no compiler, no ninja, nothing
        run = tools["python"](HIT, library.name, *files, PATH=path, PYTHONDONTWRITEBYTECODE="1")
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
        answer = json.loads(out)
        assert (answer["loaded"], answer["origin"], answer["events"]) == (True, "cache", []), answer
        assert not answer["cpp_extension"]
        assert answer["same"]


def test_importing_compiles_nothing_and_imports_no_builder(tools):
    code = "import sys, det_ops.native; print('torch.utils.cpp_extension' in sys.modules)"
    out, err = tools["python"](code).communicate(timeout=120)
    assert out.strip() == "False", err


def test_a_changed_header_is_built_anew(make, builds, cache_folder, forget):
    library = make()
    before = native.load(library).path
    library.headers[0].write_text("#define PART 43\n")
    forget()
    after = native.load(library)
    assert after.loaded
    assert after.path != before
    assert len(builds()) == 2


def test_another_torch_is_built_anew(make, builds, cache_folder, monkeypatch):
    library = make()
    before = native.build(library).path
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    assert native.build(library).path != before


def test_another_compiler_is_built_anew(make, builds, cache_folder, tools, tmp_path, monkeypatch):
    library = make()
    before = native.build(library).path
    real = shutil.which("c++")
    text = f'[ "$1" = --version ] && echo "other 1.0" && exit 0\nexec {real} "$@"'
    monkeypatch.setenv("CXX", str(tools["script"](tmp_path / "other", text)))
    after = native.build(library)
    assert after.built_seconds is not None
    assert after.path != before
    assert native.build(library).path == after.path


def test_the_same_compiler_in_another_place_is_a_hit(make, builds, cache_folder, tools, tmp_path, monkeypatch):
    library = make()
    before = native.build(library).path
    monkeypatch.setenv("CXX", str(tools["script"](tmp_path / "same", f'exec {shutil.which("c++")} "$@"')))
    assert native.build(library).path == before


@pytest.mark.parametrize("here", ["none", "broken"])
def test_where_no_compiler_works_any_entry_serves(here, make, builds, cache_folder, tools, tmp_path, monkeypatch):
    library = make()
    path = native.build(library).path
    broken = tools["script"](tmp_path / "broken", "exit 1")
    monkeypatch.setenv("CXX", str(broken if here == "broken" else tmp_path / "none"))
    assert native.load(library).path == path


def test_another_compiler_that_cannot_build_falls_back_on_the_entry(make, builds, cache_folder, tools, tmp_path,
                                                                    monkeypatch):  # fmt: skip
    library = make()
    path = native.build(library).path
    text = '[ "$1" = --version ] && echo "other 1.0" && exit 0\necho no licence >&2; exit 1'
    monkeypatch.setenv("CXX", str(tools["script"](tmp_path / "other", text)))
    outcome = native.load(library)
    assert (outcome.loaded, outcome.path) == (True, path)
    assert "it cannot be rebuilt here" in outcome.note
    assert "no licence" in outcome.note


def test_prebuilt_comes_first_and_asks_for_no_compiler(make, builds, tmp_path, monkeypatch, bare_path):
    library = make()
    monkeypatch.setenv("DET_OPS_CACHE", str(tmp_path / "elsewhere"))
    native.build(library)
    monkeypatch.delenv("DET_OPS_CACHE")
    monkeypatch.setenv("DET_OPS_PREBUILT", f"{tmp_path / 'nothing'}:{tmp_path / 'elsewhere'}")
    bare_path()
    outcome = native.load(library)
    assert (outcome.loaded, outcome.origin) == (True, "prebuilt")
    assert outcome.path.is_relative_to(tmp_path / "elsewhere")


def test_prebuilt_beside_the_package(make, builds, tmp_path, monkeypatch):
    library = make()
    monkeypatch.setenv("DET_OPS_CACHE", str(tmp_path / "made"))
    native.build(library)
    monkeypatch.delenv("DET_OPS_CACHE")
    monkeypatch.setattr(cache, "PREBUILT", tmp_path / "made")
    assert native.load(library).origin == "prebuilt"
    assert Path(native.__file__).parents[1] / "prebuilt" != cache.PREBUILT


def test_a_library_of_that_name_from_elsewhere_is_not_loaded_twice(make, builds, cache_folder, tmp_path, monkeypatch):
    library = make()
    copy = tmp_path / f"{library.name}.so"
    shutil.copy(native.build(library).path, copy)
    torch.ops.load_library(str(copy))
    outcome = native.load(library)
    assert (outcome.loaded, outcome.path, outcome.origin) == (True, copy, "process")
    assert native.peek(library).summary().startswith(f"loaded from {copy}")


def test_another_library_of_that_name_is_not_loaded_beside_it(make, builds, cache_folder):
    library = make()
    first = native.load(library)
    other = make(name=library.name, flags=("-O1",))
    outcome = native.load(other)
    assert (outcome.path, outcome.origin) == (first.path, "process")
    assert outcome.note == "already loaded, possibly from other sources; a new process searches again"


def test_peek(make, builds, cache_folder, monkeypatch):
    library = make()
    unbuilt = native.peek(library)
    assert unbuilt.summary().startswith("not built yet: would build with /")
    assert builds() == []
    assert not cache_folder.exists()
    built = native.build(library)
    assert native.peek(library).summary() == f"built at {built.path}"
    native.load(library)
    assert native.peek(library).summary() == f"loaded from {built.path}"


def test_off(make, builds, cache_folder, monkeypatch, recwarn):
    monkeypatch.setenv("DET_OPS_NATIVE", "off")
    library = make()
    outcome = native.load(library)
    assert not outcome.loaded
    assert outcome.summary() == native.peek(library).summary() == "off: switched off by DET_OPS_NATIVE=off"
    native.warn_once(outcome)  # the user asked for it
    assert len(recwarn) == 0
    assert builds() == []


def test_force_builds_anew(make, builds, cache_folder):
    library = make()
    first = native.build(library)
    assert native.build(library).built_seconds is None
    again = native.build(library, force=True)
    assert again.built_seconds is not None
    assert again.path == first.path
    assert len(builds()) == 2
    assert native.load(library).loaded


def test_an_interrupted_probe_is_no_fingerprint(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    assert probe.fingerprint(cuda=False) == ""
