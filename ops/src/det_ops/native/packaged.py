"""Libraries that an installed package contains, compiled elsewhere: with one, nobody needs a compiler.

    PACKAGE/libraries/NAME/NAME.so, manifest.json

`NativeLibrary.package` names the package. Cached libraries belong to one build of torch. Those of a package belong to
every torch from the oldest that they were compiled for, since they use only torch's stable ABI: the functions that
`torch/csrc/stable` and its C shim declare, in the version that the compiler flag TORCH_TARGET_VERSION chooses. Whether
a library fits is decided from its manifest: the sources and flags, the system, the versions of torch and of CUDA, and
the GPU architectures. The C library is left to the dynamic linker, whose message `load` reports.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from det_ops.native import archs
from det_ops.native.archs import Archs
from det_ops.native.key import Snapshot, libc, snapshot
from det_ops.native.library import NativeLibrary

FORMAT = 1
_TARGET = re.compile(r"-DTORCH_TARGET_VERSION=0x([0-9a-f]{2})([0-9a-f]{2})[0-9a-f]{12}")


@dataclass(frozen=True)
class Manifest:
    """What a packaged library was compiled from and for.

    Args:
        format: version of this description.
        size: of the file, in bytes.
        sources: digest of the sources and flags (`Snapshot.sources`).
        system: `sys.platform` and machine type.
        torch_least: the oldest torch that it runs with, such as "2.11".
        cuda: major version of the CUDA runtime that it links; empty for a CPU library.
        archs: GPU architectures.
        built_with: versions of torch, compiler and C library, for people.
    """

    format: int
    size: int
    sources: str
    system: str
    torch_least: str
    cuda: str
    archs: str
    built_with: str


@dataclass(frozen=True)
class Packaged:
    """A packaged library: its file; or `reason` and `remedy` if the package is installed, but its library is unfit.

    Without the package, both `library` and `reason` are empty.
    """

    library: Path | None = None
    reason: str = ""
    remedy: str = ""


def find(library: NativeLibrary, files: Snapshot, required: Archs) -> Packaged:
    """The library that the package of `library` contains, if it fits."""
    folder = _folder(library.package)
    if folder is None or not (folder / "libraries" / library.name).is_dir():
        return Packaged()  # a package without CUDA kernels is complete
    path = folder / "libraries" / library.name / f"{library.name}.so"
    reason = _why_unfit(path, library, files, required)
    if not reason:
        return Packaged(path)
    remedy = f"install a {_distribution(library.package)} that fits, or uninstall it"
    return Packaged(None, f"{label(library.package)} is not used: {reason}", remedy)


def label(package: str) -> str:
    """The distribution and its version, such as "det-ops-kernels 0.1.0"."""
    try:
        return f"{_distribution(package)} {importlib.metadata.version(_distribution(package))}"
    except importlib.metadata.PackageNotFoundError:
        return _distribution(package)


def _distribution(package: str) -> str:
    return package.replace("_", "-")


def _folder(package: str) -> Path | None:
    """The folder of an installed package, which is not imported."""
    try:
        spec = importlib.util.find_spec(package) if package else None
    except (ImportError, ValueError):
        return None
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def _why_unfit(path: Path, library: NativeLibrary, files: Snapshot, required: Archs) -> str:
    try:
        manifest = Manifest(**json.loads(path.with_name("manifest.json").read_text(encoding="utf-8")))
        size = path.stat().st_size
    except (OSError, ValueError, TypeError) as error:
        return f"its {library.name} cannot be read ({error})"
    if manifest.format != FORMAT:
        return f"its manifest has format {manifest.format}, expected {FORMAT}"
    if size != manifest.size:
        return f"{path} has {size} bytes, expected {manifest.size}"
    if manifest.sources != files.sources:
        return f"its {library.name} was compiled from other sources or flags than those installed here"
    if manifest.system != _system():
        return f"its {library.name} was compiled for {manifest.system}, and this is {_system()}"
    if _version(torch.__version__) < _version(manifest.torch_least):
        return f"its {library.name} requires torch >= {manifest.torch_least}, found {torch.__version__}"
    if library.cuda and manifest.cuda != _cuda():
        return f"its {library.name} was compiled for CUDA {manifest.cuda}, and torch for CUDA {_cuda() or 'none'}"
    if not required.covered_by(manifest.archs):
        return f"its {library.name} was compiled for the GPU architectures {manifest.archs}, which are not those here"
    return ""


def pack(library: NativeLibrary, built: Path, package: Path) -> Path:
    """Copies a library that was built here into the folder of a package, with its manifest; returns the copy.

    Args:
        library: the library.
        built: its file, as `det_ops.native.build` returned it.
        package: the folder of the package that is being built.

    Raises:
        ValueError: if its flags set no TORCH_TARGET_VERSION, so that it belongs to one version of torch.
    """
    targets = [match for flag in library.flags if (match := _TARGET.fullmatch(flag))]
    if not targets:
        raise ValueError(f"native library {library.name}: no flag -DTORCH_TARGET_VERSION=0x..., so it fits one torch")
    entry = json.loads((built.parent / "manifest.json").read_text(encoding="utf-8"))
    target = package / "libraries" / library.name / f"{library.name}.so"
    target.parent.mkdir(parents=True)
    shutil.copyfile(built, target)
    manifest = Manifest(
        format=FORMAT,
        size=target.stat().st_size,
        sources=snapshot(library).sources,
        system=_system(),
        torch_least=f"{int(targets[0][1], 16)}.{int(targets[0][2], 16)}",
        cuda=_cuda() if library.cuda else "",
        archs=archs.required(library.cuda).to_build() if library.cuda else "",
        built_with=", ".join(filter(None, (f"torch {torch.__version__}", entry["tools"]["compiler"], libc()))),
    )
    text = json.dumps(asdict(manifest), indent=2) + "\n"
    target.with_name("manifest.json").write_text(text, encoding="utf-8")
    return target


def _system() -> str:
    return f"{sys.platform} {platform.machine()}"


def _cuda() -> str:
    return (torch.version.cuda or "").partition(".")[0]


def _version(text: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", str(text))[:2])
