"""The description of a library to build."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NativeLibrary:
    """A library of torch operators in C++, and for GPUs in CUDA.

    The build uses copies of the files listed here and no others. The compiler does not find a local header that is
    missing from `headers`, so every change of a header leads to a new build. Headers are found in the folder of any
    header or source; folders keep their relative positions. The library must depend only on torch's own libraries, not
    on Python, so that one build can be used with every Python.

    Args:
        name: file name of the library, `[a-z0-9_]+`; one process loads one library of a name.
        sources: .cpp and .cu files with different names, since their objects are in one folder. An empty tuple, as in
            an incomplete installation, is an error only when the library is loaded.
        headers: every local header.
        cuda: link the CUDA runtime, and compile .cu files with nvcc.
        flags: for the C++ compiler.
        cuda_flags: for nvcc, without architectures.
        package: import name of a package that may contain it compiled, and is looked for first (see
            `det_ops.native.packaged`). It is not imported.

    Raises:
        ValueError: for a bad name, ambiguous sources, or flags that restrict the library to one machine.
    """

    name: str
    sources: tuple[Path, ...]
    headers: tuple[Path, ...] = ()
    cuda: bool = False
    flags: tuple[str, ...] = ()
    cuda_flags: tuple[str, ...] = ()
    package: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", self.name):
            raise ValueError(f"native library name {self.name!r}: expected [a-z0-9_]+")
        names = [path.name for path in self.sources]
        for name in names:
            self._check_source(name)
        if len(set(names)) < len(names):
            raise ValueError(f"native library {self.name}: two sources have one file name: {', '.join(sorted(names))}")
        self._check_flags()

    def _check_source(self, name: str) -> None:
        allowed = (".cpp", ".cu") if self.cuda else (".cpp",)
        if Path(name).suffix not in allowed:
            raise ValueError(f"native library {self.name}: source {name}, expected {' or '.join(allowed)}")

    def _check_flags(self) -> None:
        for flag in (*self.flags, *self.cuda_flags):
            if "native" in flag and flag.startswith("-m"):
                raise ValueError(f"native library {self.name}: flag {flag} restricts it to one machine")
        for flag in self.cuda_flags:
            if "arch" in flag or "gencode" in flag:
                raise ValueError(
                    f"native library {self.name}: flag {flag}; architectures come from TORCH_CUDA_ARCH_LIST"
                )
