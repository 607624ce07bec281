"""The key of a built library: everything that influences the build.

The digest covers what can be read without starting a program: the files, the flags, torch, the operating system.
`Tools` covers the compilers, the C library and the GPU architectures, for which equality is not required (see
`det_ops.native.cache`). The digest contains the version of torch because ninja does not track torch's headers, so that
an upgrade in place would be missed. It does not contain the version of Python, since the libraries never include
Python.h.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from det_ops.native.library import NativeLibrary
from det_ops.native.outcome import CannotBuild

FORMAT = 1  # version of the cache's layout: older entries are ignored


@dataclass(frozen=True)
class Tools:
    """The tools that compiled a library, besides torch."""

    compiler: str
    nvcc: str = ""
    libc: str = ""
    archs: str = ""

    def short(self) -> str:
        return _sha(asdict(self))[:8]


@dataclass(frozen=True)
class Snapshot:
    """The files of a library as they were read, so that exactly the hashed contents are compiled; and the digest.

    Args:
        base: the common folder of all files.
        files: (path relative to base, content).
        digest: of everything that influences the build here; hexadecimal.
        sources: of the files and flags alone, which are equal on all machines; hexadecimal.
    """

    base: Path
    files: tuple[tuple[str, bytes], ...]
    digest: str
    sources: str

    def place(self, path: Path) -> str:
        """The path of a file relative to the base."""
        return os.path.relpath(os.path.abspath(path), self.base)

    def entry_name(self, library: NativeLibrary, tools: Tools) -> str:
        return f"{library.name}-{self.digest[:16]}-{tools.short()}"


def snapshot(library: NativeLibrary) -> Snapshot:
    """Reads the library's files.

    Raises:
        CannotBuild: if there are none, or one cannot be read.
    """
    remedy = f"reinstall the package that provides {library.name}"
    if not library.sources:
        raise CannotBuild("its sources are missing", remedy)
    paths = [os.path.abspath(p) for p in (*library.sources, *library.headers)]
    base = os.path.commonpath([os.path.dirname(p) for p in paths])
    try:
        files = tuple((os.path.relpath(p, base), Path(p).read_bytes()) for p in sorted(set(paths)))
    except OSError as error:
        raise CannotBuild(f"source {error.filename} cannot be read ({error.strerror})", remedy) from None
    content: dict[str, object] = {
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files},
        "sources": [os.path.relpath(p, base) for p in paths[: len(library.sources)]],
        "name": library.name,
        "flags": library.flags,
        "cuda": library.cuda,
        "cuda_flags": library.cuda_flags,
        "format": FORMAT,
    }
    here = {
        "torch": [str(torch.__version__), torch.version.git_version],
        "torch_cuda": torch.version.cuda if library.cuda else None,
        "cxx11_abi": torch.compiled_with_cxx11_abi(),
        "system": [sys.platform, platform.machine()],
    }
    return Snapshot(Path(base), files, _sha({**content, **here}), _sha(content))


def libc() -> str:
    """The C library: a library built with a newer one does not load with an older one, and home folders are shared."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):  # no such name outside glibc
        return ""


def _sha(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
