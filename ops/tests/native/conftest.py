"""Fixtures for the tests of the loader: an isolated environment, small libraries, and a quick builder."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from det_ops.native import NativeLibrary, builder, loader, outcome

OURS = ("CXX", "CC", "CUDA_HOME", "CUDA_PATH", "TORCH_CUDA_ARCH_LIST", "MAX_JOBS", "PYTORCH_NVCC")
_numbers = itertools.count()

# Speaks child.py's protocol, but calls the compiler itself: cpp_extension needs two seconds to import torch.
QUICK = """
import json, os, pathlib, subprocess, sys
spec = json.loads(pathlib.Path(sys.argv[1]).read_text())
with open(os.environ["BUILDS"], "a") as file:
    file.write(spec["name"] + "\\n")
includes = [f"-I{path}" for path in spec["extra_include_paths"]]
target = f"{spec['build_directory']}/{spec['name']}.so"
command = [os.environ["CXX"], "-shared", "-fPIC", *spec["extra_cflags"], *includes, *spec["sources"], "-o", target]
sys.exit(3 if subprocess.run(command).returncode else 0)
"""


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolates a test from other tests and the user's settings, with every folder under tmp_path."""
    for name in [*OURS, *(name for name in os.environ if name.startswith("DET_OPS_"))]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(loader, "_answers", {})
    monkeypatch.setattr(loader, "_loaded", {})
    monkeypatch.setattr(outcome, "_warned", set())
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DET_OPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., NativeLibrary]:
    """Makes a library with a unique name, from sources that do not include torch."""

    def make(text: str = '#include "part.h"\nint answer() { return PART; }\n', **fields: object) -> NativeLibrary:
        name = str(fields.pop("name", f"demo_{os.getpid()}_{next(_numbers)}"))
        source, header = tmp_path / "sources" / f"{name}.cpp", tmp_path / "sources" / "part.h"
        source.parent.mkdir(exist_ok=True)
        source.write_text(text)
        header.write_text("#define PART 42\n")
        return NativeLibrary(name, (source,), (header,), **fields)

    return make


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Installs the quick builder; returns a function that lists the builds so far."""
    needs_compiler()
    child, log = tmp_path / "quick.py", tmp_path / "builds"
    child.write_text(QUICK)
    log.write_text("")
    monkeypatch.setattr(builder, "CHILD", child)
    monkeypatch.setenv("BUILDS", str(log))
    return lambda: log.read_text().split()


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Sets a PATH that contains only the named programs."""

    def bare(*programs: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for program in programs:
            found = shutil.which(program)
            if found:
                (folder / program).symlink_to(os.path.realpath(found))
        monkeypatch.setenv("PATH", str(folder))
        return folder

    return bare


def script(path: Path, text: str) -> Path:
    """A program made of shell commands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def needs_compiler() -> None:
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler")


def python(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Starts Python on its own, as a user would."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture
def tools() -> dict[str, Callable[..., object]]:
    """Helpers as a fixture, since test folders are not packages."""
    return {"script": script, "python": python, "needs_compiler": needs_compiler}


@pytest.fixture
def torch_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.2")


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes the process forget what it has loaded, as a new process would."""

    def forget() -> None:
        monkeypatch.setattr(loader, "_answers", {})
        monkeypatch.setattr(loader, "_loaded", {})
        monkeypatch.setattr(torch.ops, "loaded_libraries", set())

    return forget
