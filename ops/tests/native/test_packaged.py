"""Libraries that an installed package contains: when they are used, and what is said if they are not."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from det_ops import libraries, native
from det_ops.native import NativeLibrary, packaged
from det_ops.native.archs import Archs
from det_ops.native.key import snapshot

PACKAGE = "my_kernels"
TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000"  # 2.11


@pytest.fixture
def library(make, builds, cache_folder, tmp_path, monkeypatch) -> NativeLibrary:
    """A library whose package is installed and contains it, compiled; the cache is empty."""
    made = make(flags=(TARGET,), package=PACKAGE)
    folder = tmp_path / "site" / PACKAGE
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    packaged.pack(made, native.build(made).path, folder)
    monkeypatch.syspath_prepend(str(folder.parent))
    shutil.rmtree(cache_folder)
    return made


@pytest.fixture
def no_compiler(monkeypatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++")


def library_file(library: NativeLibrary, tmp_path: Path) -> Path:
    return tmp_path / "site" / PACKAGE / "libraries" / library.name / f"{library.name}.so"


def test_it_comes_before_the_cache_and_asks_for_no_compiler(library, builds, tmp_path, cache_folder, no_compiler):
    file = library_file(library, tmp_path)
    assert native.peek(library).summary() == f"prebuilt at {file}"
    outcome = native.load(library)
    assert (outcome.loaded, outcome.origin, outcome.path, outcome.note) == (True, "prebuilt", file, "")
    assert outcome.summary() == f"loaded from {file}, prebuilt"
    assert builds() == [library.name]  # when the package was made
    assert not cache_folder.exists()
    assert PACKAGE not in sys.modules


def test_one_library_serves_later_versions_of_torch(library, tmp_path, monkeypatch):
    manifest = json.loads(library_file(library, tmp_path).with_name("manifest.json").read_text())
    assert (manifest["torch_least"], manifest["cuda"]) == ("2.11", "")
    for version in ("2.11.0+cpu", "2.99.0a0+git123", "3.0.0"):
        monkeypatch.setattr(torch, "__version__", version)
        assert native.peek(library).origin == "prebuilt"


def change_header(library: NativeLibrary, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library.headers[0].write_text("#define PART 43\n")


def older_torch(library: NativeLibrary, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.10.1")


def other_machine(library: NativeLibrary, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(file, system="plan9 pdp11")


def cut_off(library: NativeLibrary, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def newer_manifest(library: NativeLibrary, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(file, format=2)


def no_manifest(library: NativeLibrary, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.with_name("manifest.json").write_text("[]")


def rewrite(file: Path, **values: object) -> None:
    manifest = file.with_name("manifest.json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | values))


UNFIT = [
    (change_header, "was compiled from other sources or flags than those installed here"),
    (older_torch, "requires torch >= 2.11, found 2.10.1"),
    (other_machine, "was compiled for plan9 pdp11, and this is "),
    (cut_off, " bytes, expected "),
    (newer_manifest, "its manifest has format 2, expected 1"),
    (no_manifest, "cannot be read ("),
]


@pytest.mark.parametrize(("spoil", "reason"), UNFIT, ids=[spoil.__name__ for spoil, _ in UNFIT])
def test_one_that_does_not_fit_is_compiled_here_and_the_reason_stated(spoil: Callable[..., None], reason, library,
                                                                      tmp_path, cache_folder, monkeypatch):  # fmt: skip
    spoil(library, library_file(library, tmp_path), monkeypatch)
    before = native.peek(library)
    assert reason in before.note
    assert before.note.startswith("my-kernels is not used: ")
    assert before.note.endswith("; install a my-kernels that fits, or uninstall it")
    assert before.summary().startswith("not built yet: would build with ")
    outcome = native.load(library)
    assert (outcome.loaded, outcome.origin, outcome.note) == (True, "build", before.note)
    assert outcome.path.is_relative_to(cache_folder)


def test_without_a_compiler_the_warning_also_says_why_it_does_not_fit(library, tmp_path, monkeypatch, no_compiler):
    older_torch(library, library_file(library, tmp_path), monkeypatch)
    outcome = native.load(library)
    assert not outcome.loaded
    with pytest.warns(RuntimeWarning) as caught:
        native.warn_once(outcome)
    text = str(caught[0].message)
    assert "/nowhere/c++" in text
    assert " Also, my-kernels is not used: its " in text
    assert native.peek(library).note == outcome.note


def test_one_that_does_not_load_is_compiled_here(library, tmp_path, cache_folder):
    file = library_file(library, tmp_path)
    file.write_bytes(b"\0" * file.stat().st_size)
    outcome = native.load(library)
    assert (outcome.loaded, outcome.origin) == (True, "build")
    assert f"{file} does not load: " in outcome.note


def test_one_that_others_can_write_is_not_loaded(library, tmp_path, capfd):
    file = library_file(library, tmp_path)
    file.chmod(0o666)
    assert native.load(library).origin == "build"
    assert f"is not loaded: {file} can be written by other users" in capfd.readouterr().err


def test_a_package_that_is_not_installed_or_lacks_the_library_is_not_mentioned(library, make):
    for other in (make(flags=(TARGET,), package="no_such_package"), make(flags=(TARGET,), package=PACKAGE)):
        assert native.peek(other).note == ""


def cuda_problem(library: NativeLibrary, tmp_path: Path, required: Archs = Archs(), **values: str) -> str:  # noqa: B008
    """What is said about the library if it were one for CUDA, with these values in its manifest."""
    cuda = dataclasses.replace(library, cuda=True)
    sources = snapshot(cuda).sources
    rewrite(library_file(library, tmp_path), **{"sources": sources, "cuda": "13", "archs": "9.0", **values})
    return packaged.find(cuda, snapshot(cuda), required).reason


def test_a_cuda_library_fits_one_major_version_and_some_gpus(library, tmp_path, torch_with_cuda):
    assert cuda_problem(library, tmp_path) == ""
    assert "was compiled for CUDA 12, and torch for CUDA 13" in cuda_problem(library, tmp_path, cuda="12")
    assert "for the GPU architectures 9.0, which" in cuda_problem(library, tmp_path, Archs(devices=((8, 0),)))
    assert cuda_problem(library, tmp_path, Archs(devices=((9, 0),))) == ""


def test_only_a_library_for_the_stable_abi_is_packed(make, builds, cache_folder, tmp_path):
    library = make(package=PACKAGE)
    with pytest.raises(ValueError, match="no flag -DTORCH_TARGET_VERSION=0x..., so it fits one torch"):
        packaged.pack(library, native.build(library).path, tmp_path)


@pytest.mark.parametrize("library", [libraries.CPU, libraries.CUDA], ids=lambda x: x.name)
def test_the_kernels_may_be_packed(library):
    assert library.package == "det_ops_kernels"
    assert TARGET in library.flags
    texts = [path.read_text(encoding="utf-8") for path in (*library.sources, *library.headers)]
    assert any("#include <torch/csrc/stable/" in text for text in texts)
    for text in texts:
        for banned in ("<ATen/", "<c10/", "<torch/extension.h>", "<torch/torch.h>", "<torch/library.h>", "<Python.h>"):
            assert f"#include {banned}" not in text
