"""The private folder in which a library is built: copies of its files, the tools by plain paths, the environment."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from det_ops.native.key import Snapshot
from det_ops.native.library import NativeLibrary
from det_ops.native.probe import Toolchain


@contextmanager
def opened(real: Path) -> Iterator[Path]:
    """A path of the folder without characters that ninja, a shell or torch's unquoted flags would misinterpret.

    If its own path has such characters, this is a link in the temporary folder.
    """
    if _is_plain(real):
        yield real
        return
    with tempfile.TemporaryDirectory(prefix="det-ops-link-") as links:
        link = Path(links, "stage")
        link.symlink_to(real, target_is_directory=True)
        yield link


def fill(stage: Path, library: NativeLibrary, snapshot: Snapshot, toolchain: Toolchain) -> dict[str, object]:
    """Writes the hashed contents of the files, and returns the arguments for cpp_extension."""
    for name, data in snapshot.files:
        path = stage / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (stage / "objects").mkdir()
    _put_tools(stage, toolchain)
    places = [stage / "sources" / snapshot.place(p) for p in (*library.sources, *library.headers)]
    return {
        "name": library.name,
        "sources": [str(p) for p in places[: len(library.sources)]],
        "extra_include_paths": sorted({str(p.parent) for p in places}),
        "extra_cflags": list(library.flags),
        "extra_cuda_cflags": list(library.cuda_flags),
        # torch also links its Python library, which these libraries do not use and must not depend on
        "extra_ldflags": ["-Wl,--as-needed"] if sys.platform.startswith("linux") else [],
        "with_cuda": library.cuda,
        "build_directory": str(stage / "objects"),
    }


def _put_tools(stage: Path, toolchain: Toolchain) -> None:
    """Links ninja into an empty folder, since its own folder may contain another compiler; makes CXX one plain path."""
    tools = stage / "tools"
    tools.mkdir()
    (tools / "ninja").symlink_to(toolchain.ninja)
    if len(toolchain.cxx) > 1 or not _is_plain(Path(toolchain.cxx[0])):
        wrapper = tools / "cxx"
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(toolchain.cxx)} "$@"\n')
        wrapper.chmod(0o755)
    if toolchain.cuda_home and not _is_plain(toolchain.cuda_home):
        (tools / "cuda").symlink_to(toolchain.cuda_home)
    torch_folder = Path(torch.__file__).parent
    if not _is_plain(torch_folder):
        (tools / "python").mkdir()
        (tools / "python" / "torch").symlink_to(torch_folder)


def environment(stage: Path, toolchain: Toolchain) -> dict[str, str]:
    """The environment for the builder: the user's, with the variables that are determined here."""
    tools = stage / "tools"
    wrapper, cuda, python = tools / "cxx", tools / "cuda", tools / "python"
    cxx = str(wrapper) if wrapper.exists() else toolchain.cxx[0]
    settled = {
        "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": os.pathsep.join([str(python)] * python.is_dir() + [p for p in sys.path if p]),
        "CXX": cxx,
        "TORCH_NO_COMPILER_WRAPPER": "1",  # a private folder has no hits in ccache, which may write elsewhere
        "MAX_JOBS": os.environ.get("MAX_JOBS") or str(jobs()),
        "LC_ALL": "C",
    }
    if toolchain.cuda_home:
        settled["CUDA_HOME"] = str(cuda if cuda.exists() else toolchain.cuda_home)
        settled["TORCH_CUDA_ARCH_LIST"] = toolchain.tools.archs
        # nothing is built twice in a private folder, so nvcc's list of headers is not needed
        settled["TORCH_EXTENSION_SKIP_NVCC_GEN_DEPENDENCIES"] = "1"
        if os.environ.get("CXX"):  # nvcc takes its host compiler from CC
            settled["CC"] = os.environ.get("CC") or cxx
    return {**os.environ, **settled}


def jobs() -> int:
    """The number of parallel compilers: one per core, and at most one per 2 GB of memory."""
    cores = len(os.sched_getaffinity(0)) if sys.platform.startswith("linux") else os.cpu_count() or 1
    return max(1, min(cores, _memory() // 2_000_000_000))


def _memory() -> int:
    """Bytes of memory of the machine or the container."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 2_000_000_000
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such limit, or "max"
        return total


def _is_plain(path: Path) -> bool:
    return re.fullmatch(r"[\w@%+=,./~-]+", str(path), re.ASCII) is not None
