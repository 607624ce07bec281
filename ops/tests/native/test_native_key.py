"""The description of a library, and what its key covers."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from det_ops.native import NativeLibrary, key
from det_ops.native.archs import Archs
from det_ops.native.outcome import CannotBuild

A = Path("/s/a.cpp")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "Demo-1"}, r"native library name 'Demo-1': expected \[a-z0-9_\]\+"),
        ({"sources": (Path("a.cu"),)}, r"native library x: source a.cu, expected .cpp$"),
        ({"sources": (Path("a.c"),), "cuda": True}, r"native library x: source a.c, expected .cpp or .cu$"),
        ({"sources": (A, Path("/t/a.cpp"))}, r"native library x: two sources have one file name: a.cpp, a.cpp"),
        ({"flags": ("-march=native",)}, r"native library x: flag -march=native restricts it to one machine"),
        ({"cuda_flags": ("-arch=sm_90",)}, r"native library x: flag -arch=sm_90; architectures come from TORCH_CUDA"),
    ],
)
def test_a_bad_description(fields, message):
    with pytest.raises(ValueError, match=message):
        NativeLibrary(**{"name": "x", "sources": (A,), **fields})


def test_no_sources_shows_when_the_library_is_wanted():
    with pytest.raises(CannotBuild, match="its sources are missing; reinstall the package that provides x"):
        key.snapshot(NativeLibrary("x", ()))


def test_a_source_that_cannot_be_read(tmp_path):
    missing = tmp_path / "a.cpp"
    with pytest.raises(CannotBuild, match=rf"source {missing} cannot be read \(No such file or directory\)"):
        key.snapshot(NativeLibrary("x", (missing,)))


@pytest.mark.parametrize(
    "change", ["header", "source", "flags", "torch", "git", "cuda_flags", "abi", "machine", "name"]
)
def test_every_ingredient_changes_the_key(change, make, monkeypatch):
    library = make()
    before = key.snapshot(library).digest
    assert key.snapshot(library).digest == before
    if change in ("header", "source"):
        path = {"header": library.headers, "source": library.sources}[change][0]
        path.write_text(path.read_text() + "// changed\n")
    elif change in ("flags", "cuda_flags"):
        library = dataclasses.replace(library, **{change: ("-O3",)})
    elif change == "name":
        library = dataclasses.replace(library, name="other")
    else:
        _change_platform(change, monkeypatch)
    assert key.snapshot(library).digest != before


def _change_platform(change, monkeypatch):
    if change == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9.9")
    elif change == "git":
        monkeypatch.setattr(torch.version, "git_version", "0" * 40)
    elif change == "abi":
        was = torch.compiled_with_cxx11_abi()
        monkeypatch.setattr(torch, "compiled_with_cxx11_abi", lambda: not was)
    else:
        monkeypatch.setattr(key.platform, "machine", lambda: "pdp11")


def test_the_cuda_version_counts_for_cuda_libraries_only(make, monkeypatch):
    plain, cuda = make(), make(cuda=True)
    before = key.snapshot(plain).digest, key.snapshot(cuda).digest
    monkeypatch.setattr(torch.version, "cuda", "99.0")
    assert key.snapshot(plain).digest == before[0]
    assert key.snapshot(cuda).digest != before[1]


def test_the_place_of_the_files_is_no_part_of_the_key(tmp_path):
    digests = set()
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        source = tmp_path / folder / "a.cpp"
        source.write_text("int a;")
        digests.add(key.snapshot(NativeLibrary("x", (source,))).digest)
    assert len(digests) == 1


@pytest.mark.parametrize("field", ["compiler", "nvcc", "libc", "archs"])
def test_every_tool_changes_the_name_of_an_entry(field, make):
    library = make()
    files, before = key.snapshot(library), key.Tools("g++ 12", "nvcc 13", "glibc 2.36", "9.0")
    after = dataclasses.replace(before, **{field: "other"})
    assert files.entry_name(library, before) != files.entry_name(library, after)


def test_no_c_library_version_outside_glibc(monkeypatch):
    def unknown(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown)
    assert key.libc() == ""


@pytest.mark.parametrize(
    ("built", "device", "runs"),
    [
        ("9.0", (9, 0), True),
        ("8.0", (8, 6), True),  # machine code serves newer minors
        ("8.6", (8, 0), False),
        ("8.0", (9, 0), False),  # and no other major
        ("8.0+PTX", (9, 0), True),  # which PTX does
        ("9.0a", (9, 0), True),
        ("9.0a", (9, 1), False),
        ("Hopper", (9, 0), False),
        ("7.5;9.0", (9, 0), True),
    ],
)
def test_which_gpus_a_library_serves(built, device, runs):
    assert Archs(devices=(device,)).covered_by(built) is runs


def test_a_list_of_architectures_is_covered_by_name():
    assert Archs(names=("8.0", "9.0")).covered_by("7.5;8.0;9.0")
    assert not Archs(names=("8.0+PTX",)).covered_by("8.0")
    assert Archs().covered_by("9.0")  # no GPU is visible: nothing to serve
