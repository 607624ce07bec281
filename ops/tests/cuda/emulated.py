"""Builds the CUDA kernels and their bindings for the host, where `emulate.h` replaces CUDA.

The library registers the same functions as on a GPU, but for CPU tensors and in a namespace of its own: what is tested
is all but the compiler for the GPU and the hardware.
"""

import fcntl
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import det_ops
from det_ops import dispatch

NAMESPACE = "det_emulated"
HERE = Path(__file__).parent
SOURCES = Path(det_ops.__file__).parent / "csrc" / "cuda"
TORCH = Path(torch.__file__).parent


def compiler() -> str:
    """The C++ compiler; skips the test without one."""
    found = shutil.which(os.environ.get("CXX") or "g++") or shutil.which("c++")
    if found is None:
        pytest.skip("there is no C++ compiler")
    return found


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


def _compile(source: Path, target: Path) -> None:
    # Without contraction: coordinates and overlaps must round operation by operation, as the kernels ask of a GPU.
    # Without _FORTIFY_SOURCE: fibers jump between stacks, which it takes for a mistake.
    command = [compiler(), "-c", "-std=c++17", "-O2", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-fPIC"]
    if source.suffix == ".cu":
        # Little memory for the bits of nms, so that a few hundred boxes need several panels.
        command += ["-x", "c++", "-include", str(HERE / "emulate.h"), "-DDET_NMS_PANEL_BYTES=8192"]
    else:
        command += [f"-DDET_NAMESPACE={NAMESPACE}", "-DDET_KEY=CPU", f"-I{TORCH / 'include'}"]
    run([*command, str(source), "-o", str(target)])


def _build(folder: Path) -> Path:
    """The library in this folder, built by the first process that asks."""
    library = folder / "libdet_emulated.so"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if library.exists():
            return library
        sources = [*SOURCES.glob("*.cu"), *SOURCES.glob("*.cpp"), HERE / "emulate.cpp"]
        objects = [folder / f"{source.name}.o" for source in sources]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(_compile, sources, objects))
        part = folder / "part.so"
        # -Bsymbolic: the stand-ins for torch's CUDA functions are this library's own, whatever torch has.
        link = [compiler(), "-shared", "-Wl,-Bsymbolic", "-o", str(part), *map(str, objects)]
        run([*link, f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-lc10"])
        part.rename(library)
    return library


class Emulated:
    """The emulated operators, called by name, with the schemas of `torch.ops.det`."""

    def __init__(self, folder: Path) -> None:
        self._definitions = torch.library.Library(NAMESPACE, "DEF")
        for name in dispatch.FALLBACKS:
            schema = str(getattr(torch.ops.det, name).default._schema)
            self._definitions.define(schema.removeprefix("det::"))
        torch.ops.load_library(str(_build(folder)))

    def __call__(self, name: str, *arguments: Any) -> Any:
        return getattr(getattr(torch.ops, NAMESPACE), name).default(*arguments)
