"""Real builds by torch.utils.cpp_extension."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from det_ops import native
from det_ops.native import staging

CALL = 'extern "C" int answer() { return PART; }\n'


@pytest.fixture(autouse=True)
def _compiler(tools):
    tools["needs_compiler"]()


def test_a_compile_error_shows_the_users_file(make, cache_folder):
    library = make('#include "missing.h"\n')
    outcome = native.load(library)
    assert outcome.reason.startswith(f"building {library.name} failed: {library.sources[0]}:1:")
    assert "missing.h" in outcome.reason
    assert "RuntimeError: Error building extension" in outcome.log


def test_a_header_that_is_not_declared_is_not_found(make, builds, cache_folder):
    """Every change of a file therefore changes the key."""
    library = make(f'#include "part.h"\n#include "secret.h"\n{CALL}')
    (library.sources[0].parent / "secret.h").write_text("")
    assert "secret.h" in native.load(library).reason


def test_files_keep_their_places(builds, cache_folder, tmp_path):
    for folder in ("csrc/cpu", "csrc/common", "include"):
        (tmp_path / "p" / folder).mkdir(parents=True)
    source, near, far = (tmp_path / "p" / f for f in ("csrc/cpu/a.cpp", "csrc/common/near.h", "include/far.h"))
    source.write_text(f'#include "../common/near.h"\n#include <far.h>\n{CALL}')
    near.write_text("#define PART 6 *\\\n")
    far.write_text("\n")
    near.write_text("#define PART 42\n")
    library = native.NativeLibrary(f"places_{os.getpid()}", (source,), (near, far))
    outcome = native.load(library)
    assert outcome.loaded, outcome.log
    assert ctypes.CDLL(str(outcome.path)).answer() == 42


def test_ninja_as_a_python_package_only(make, cache_folder, bare_path):
    pytest.importorskip("ninja")
    bare_path("c++", "g++", "clang++", "as", "ld")
    assert shutil.which("ninja") is None
    outcome = native.load(make())
    assert outcome.loaded, outcome.log


def test_paths_with_spaces_and_worse(tmp_path, monkeypatch, tools):
    """Cache, sources, compiler and torch itself, each in a folder with a name that shells and ninja would split."""
    odd = tmp_path / "it's a $path: yes"
    site = odd / "site packages"
    site.mkdir(parents=True)
    (site / "torch").symlink_to(Path(torch.__file__).parent)
    (odd / "a.cpp").write_text(f'#include <torch/csrc/stable/tensor.h>\n#include "part.h"\n{CALL}')
    (odd / "part.h").write_text("#define PART 42\n")
    compiler = tools["script"](odd / "my compiler", f'exec {shutil.which("c++")} "$@"')
    monkeypatch.setenv("DET_OPS_CACHE", str(odd / "cache"))
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(torch, "__file__", str(site / "torch" / "__init__.py"))
    flags = ("-O1", "-DTORCH_TARGET_VERSION=0x020b000000000000")
    library = native.NativeLibrary(f"odd_{os.getpid()}", (odd / "a.cpp",), (odd / "part.h",), flags=flags)
    outcome = native.load(library)
    assert outcome.loaded, outcome.log
    assert outcome.path.is_relative_to(odd)
    assert ctypes.CDLL(str(outcome.path)).answer() == 42
    assert list((tmp_path / "tmp").glob("det-ops-*")) == []


def test_a_compiler_command_of_several_words(make, builds, cache_folder, monkeypatch, tools, tmp_path):
    wrapper = tools["script"](tmp_path / "ccache", 'exec "$@"')
    monkeypatch.setenv("CXX", f"{wrapper} c++ -DEXTRA=1")
    outcome = native.load(make(f"static_assert(EXTRA == 1);\n{CALL.replace('PART', 'EXTRA')}"))
    assert outcome.loaded, outcome.log


def test_a_library_that_crashes_on_loading_takes_only_the_builder_along(make, cache_folder):
    text = "#include <cstdlib>\nstatic int dead = (std::abort(), 1);\nint answer() { return dead; }\n"
    library = make(text)
    assert native.load(library).reason == f"{library.name} crashes when it is loaded (SIGABRT)"
    assert len(list(cache_folder.glob("*.failed.log"))) == 1  # it would do so again


def test_the_library_needs_no_python(make, cache_folder):
    if not sys.platform.startswith("linux") or shutil.which("readelf") is None:
        pytest.skip("reads ELF by readelf")
    import subprocess

    outcome = native.build(make())
    needed = subprocess.run(["readelf", "-d", outcome.path], capture_output=True, text=True).stdout
    assert "Dynamic section" in needed
    assert "python" not in needed


def test_the_environment_of_the_builder(make, monkeypatch, tmp_path):
    toolchain = native.loader.probe.toolchain(False, native.loader.Archs())
    stage = tmp_path / "stage"
    stage.mkdir()
    library = make()
    staging.fill(stage, library, native.loader.snapshot(library), toolchain)
    monkeypatch.setenv("MAX_JOBS", "3")
    environment = staging.environment(stage, toolchain)
    assert environment["MAX_JOBS"] == "3"
    assert environment["PATH"].split(os.pathsep)[0] == str(stage / "tools")
    assert os.listdir(stage / "tools") == ["ninja"]  # and no other program moves up the PATH
    monkeypatch.delenv("MAX_JOBS")
    assert staging.environment(stage, toolchain)["MAX_JOBS"] == str(staging.jobs())
