"""Finds the C++ compiler and ninja; raises with a specific reason if one is missing or broken."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from det_ops.native import probe_cuda
from det_ops.native.archs import Archs
from det_ops.native.key import Tools, libc
from det_ops.native.outcome import CannotBuild
from det_ops.native.run import output

_NAMES = ("c++", "g++", "clang++")
_GET = "install g++ (Debian, Ubuntu: apt install g++; conda: cxx-compiler; macOS: xcode-select --install) or set CXX"
# including a header detects a missing standard library, linking a missing linker
_TRIVIAL = '#include <cstdint>\nextern "C" std::int64_t det_ops_probe() { return 0; }\n'


@dataclass(frozen=True)
class Toolchain:
    """The tools that build a library.

    Args:
        cxx: the command of the C++ compiler, as words.
        version: the version that it reports.
        ninja: the program.
        cuda_home: the folder of the CUDA toolkit, for CUDA libraries.
        tools: the part of the key that describes these tools.
        fingerprint: see `fingerprint`.
    """

    cxx: tuple[str, ...]
    version: str
    ninja: Path
    cuda_home: Path | None
    tools: Tools
    fingerprint: str

    def __str__(self) -> str:
        nvcc = f" and {self.tools.nvcc}, for {self.tools.archs}" if self.cuda_home else ""
        return f"{shlex.join(self.cxx)}: {self.version}{nvcc}"


def toolchain(cuda: bool, archs: Archs) -> Toolchain:
    """Finds the tools and tests each.

    Raises:
        CannotBuild: naming the first tool that is missing or does not work.
    """
    if sys.platform == "win32":
        raise CannotBuild("building on Windows is not supported", "use Linux, WSL or macOS")
    if not sys.executable:
        raise CannotBuild("sys.executable is empty", "start Python by its command, `python`")
    cxx = _cxx()
    version = _version(cxx)
    _try(cxx)
    ninja = find_ninja()
    nvcc = probe_cuda.nvcc() if cuda else None
    nvcc_version = probe_cuda.version(nvcc) if nvcc else ""
    tools = Tools(_identity(cxx, version), nvcc_version, libc(), archs.to_build() if cuda else "")
    return Toolchain(cxx, version, ninja, probe_cuda.home(nvcc) if nvcc else None, tools, fingerprint(cuda))


def identify(cuda: bool) -> tuple[str, str]:
    """The versions of the compiler and of nvcc.

    Raises:
        CannotBuild: if one is missing or does not run.
    """
    cxx = _cxx()
    nvcc = probe_cuda.version(probe_cuda.nvcc()) if cuda else ""
    return _identity(cxx, _version(cxx)), nvcc


def describe_compiler() -> str:
    """The command of the C++ compiler, and the version that it reports.

    Raises:
        CannotBuild: if it is missing or does not run.
    """
    cxx = _cxx()
    return f"{shlex.join(cxx)}: {_version(cxx)}"


def fingerprint(cuda: bool) -> str:
    """Identifies the tools without running one: path, size and time of their files, and the C library.

    Empty if one is missing, so that nothing can be built.
    """
    try:
        cxx = _cxx()
        programs = [shutil.which(word) for word in cxx]
        programs += [str(probe_cuda.nvcc())] if cuda else []
        stats = [(os.path.realpath(p), os.stat(p).st_size, os.stat(p).st_mtime_ns) for p in programs if p]
    except (CannotBuild, OSError):
        return ""
    return hashlib.sha256(repr((stats, _options(cxx), libc())).encode()).hexdigest()[:16]


def _cxx() -> tuple[str, ...]:
    """The command of the compiler: CXX, which may consist of several words such as `ccache g++`, else one on PATH."""
    asked = os.environ.get("CXX", "").strip()
    if not asked:
        found = next((path for name in _NAMES if (path := shutil.which(name))), None)
        if found is None:
            raise CannotBuild(f"there is no C++ compiler: none of {', '.join(_NAMES)} is on PATH", _GET)
        return (found,)
    words = [asked] if shutil.which(asked) else _words(asked)
    program = shutil.which(words[0])
    if program is None:
        raise CannotBuild(f"CXX is {asked!r}, which is not a program", f"correct or unset CXX, or {_GET}")
    return (os.path.abspath(program), *words[1:])


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise CannotBuild(f"CXX is {command!r}, which is not a command ({error})", "correct or unset CXX") from None


def _version(cxx: tuple[str, ...]) -> str:
    text = output([*cxx, "--version"], "the C++ compiler", _GET)
    return text.strip().partition("\n")[0] or "unknown version"


def _identity(cxx: tuple[str, ...], version: str) -> str:
    """The version without the name of the command (c++ and g++ are one compiler), and the options in CXX."""
    return " ".join([re.sub(r"^\S+ (?=\()", "", version), *_options(cxx)])


def _options(cxx: tuple[str, ...]) -> list[str]:
    return [word for word in cxx if word.startswith("-")]


def _try(cxx: tuple[str, ...]) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="det-ops-probe-") as folder:
            source = Path(folder, "probe.cpp")
            source.write_text(_TRIVIAL)
            command = [*cxx, "-std=c++17", "-shared", "-fPIC", str(source), "-o", str(Path(folder, "probe.so"))]
            output(command, "the C++ compiler, on a trivial program,", _GET)
    except OSError as error:
        raise CannotBuild(f"there is no usable temporary folder ({error})", "set TMPDIR to a folder") from None


def find_ninja() -> Path:
    """ninja on PATH, else that of the Python package, which is not on PATH if the environment is not activated.

    Raises:
        CannotBuild: if there is none, or it does not run.
    """
    found = shutil.which("ninja")
    candidates = [Path(found)] if found else []
    try:
        folder = getattr(importlib.import_module("ninja"), "BIN_DIR", "")
    except Exception:  # importing a package can raise anything; it is only the second candidate
        folder = ""
    candidates += [Path(folder, "ninja")] if folder and Path(folder, "ninja").is_file() else []
    if not candidates:
        raise CannotBuild("ninja is missing: neither on PATH nor as a Python package", "pip install ninja")
    for candidate in candidates:
        if _runs(candidate):
            return Path(os.path.abspath(candidate))
    raise CannotBuild(f"ninja does not run ({', '.join(map(str, candidates))})", "pip install --force-reinstall ninja")


def _runs(ninja: Path) -> bool:
    try:
        return subprocess.run([ninja, "--version"], capture_output=True, timeout=60).returncode == 0  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
