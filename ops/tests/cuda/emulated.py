"""Builds the CUDA kernels and their bindings for the host, where `emulate.h` stands in for CUDA.

The library registers the same functions as on a GPU, but for CPU tensors and in a namespace of its own: what is tested
is all but the compiler for the GPU and the hardware.
"""

import fcntl
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import det_ops
from det_ops import operators

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


def _compile(source: Path, target: Path) -> None:
    # Coordinates and overlaps must round operation by operation, as the kernels demand of a GPU.
    command = [compiler(), "-c", "-std=c++17", "-O2", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-fPIC"]
    if source.suffix == ".cu":
        command += ["-x", "c++", "-include", str(HERE / "emulate.h")]
    else:
        command += [f"-DDET_NAMESPACE={NAMESPACE}", "-DDET_KEY=CPU", f"-I{HERE}", f"-I{TORCH / 'include'}"]
    done = subprocess.run([*command, str(source), "-o", str(target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
        # -Bsymbolic: the stand-ins for torch's CUDA functions are this library's own, whatever torch has.
        link = [compiler(), "-shared", "-Wl,-Bsymbolic", "-o", str(library) + ".part", *map(str, objects)]
        link += [f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{TORCH / 'lib'}"]
        done = subprocess.run(link, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        os.replace(str(library) + ".part", library)
        return library


def load(folder: Path) -> SimpleNamespace:
    """The emulated operators by name, with the schemas of `torch.ops.det`."""
    path = _build(folder)
    library = torch.library.Library(NAMESPACE, "FRAGMENT")  # noqa: TOR901
    for name in operators.NAMES:
        schema = getattr(torch.ops.det, name).default._schema
        library.define(str(schema).removeprefix("det::"))
    torch.ops.load_library(str(path))
    ops = getattr(torch.ops, NAMESPACE)
    missing = [
        n for n in operators.NAMES if not torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{n}", "CPU")
    ]
    return SimpleNamespace(library=library, missing=missing, **{n: getattr(ops, n) for n in operators.NAMES})
