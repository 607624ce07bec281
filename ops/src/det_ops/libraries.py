"""The native libraries of this package: their sources and flags."""

from __future__ import annotations

from pathlib import Path

from det_ops.native import NativeLibrary

_SOURCES = Path(__file__).parent / "csrc"


def _files(folder: str, *patterns: str) -> tuple[Path, ...]:
    return tuple(sorted(path for pattern in patterns for path in (_SOURCES / folder).glob(pattern)))


# The oldest torch that the bindings support: a library built with newer headers still runs with it.
_TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000"  # 2.11

# May contain both, compiled.
_PACKAGE = "det_ops_kernels"

CPU = NativeLibrary(
    "det_ops_cpu",
    sources=_files("cpu", "*.cpp"),
    headers=_files("cpu", "*.h"),
    # No contraction: a fused multiply-add changes coordinates and overlaps by an ulp, and with them decisions.
    flags=("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", _TARGET),
    package=_PACKAGE,
)
CUDA = NativeLibrary(
    "det_ops_cuda",
    sources=_files("cuda", "*.cpp", "*.cu"),
    headers=_files("cuda", "*.h", "*.cuh"),
    cuda=True,
    flags=("-std=c++17", "-O3", "-DUSE_CUDA", _TARGET),
    cuda_flags=("-std=c++17", "-O3", "-DUSE_CUDA", _TARGET),
    package=_PACKAGE,
)
