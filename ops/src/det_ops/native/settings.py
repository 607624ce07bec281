"""Every environment variable that the native libraries read.

| Variable             | Values                      | Meaning                                                         |
|----------------------|-----------------------------|-----------------------------------------------------------------|
| DET_OPS_NATIVE       | auto, off, require          | auto: build or warn; off: never load; require: raise instead    |
| DET_OPS_CUDA         | off, on                     | on: build CUDA kernels here and use them                        |
| DET_OPS_ISA          | baseline, avx2, avx512      | the widest vector instructions used (unset: all of the CPU)     |
| DET_OPS_CACHE        | an absolute path            | first folder for built libraries; may be read-only, for sharing |
| DET_OPS_PREBUILT     | absolute paths, joined by : | folders of libraries built elsewhere, searched first            |
| DET_OPS_RETRY        | 0, 1                        | 1: try again if a build failed before                           |
| DET_OPS_VERBOSE      | 0, 1                        | 1: print the compiler's output, and where libraries are found   |
| DET_OPS_LOCK_TIMEOUT | 600 (seconds, above 0)      | how long to wait for another process that builds the same       |
| DET_OPS_BUILD_TIMEOUT| 1800 (seconds, above 0)     | how long a build may take before its compilers are ended        |

The first value is the default; DET_OPS_ISA, DET_OPS_CACHE and DET_OPS_PREBUILT have none. An empty value counts as
unset. The folders for libraries are DET_OPS_CACHE, then `det-ops` in the user's cache folder ($XDG_CACHE_HOME or
~/.cache; ~/Library/Caches on macOS), then a private folder in the temporary folder. All are searched; new libraries
are built in the first writable one. Before them, DET_OPS_PREBUILT and the package that a library names are searched
(`det_ops.native.packaged`; for the kernels of this package, det-ops-kernels). A library that another user owns or can
write, or a folder above it, is not loaded (`det_ops.native.trust`). A folder that `DET_OPS_CACHE=FOLDER python -m
det_ops build` has filled can be used elsewhere as DET_OPS_PREBUILT, for the same torch, operating system and machine
type and with any compiler.

Also used, with their usual meaning: CXX, CC (host compiler of nvcc), CUDA_HOME, CUDA_PATH, TORCH_CUDA_ARCH_LIST,
MAX_JOBS, TMPDIR.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

NativeMode = Literal["auto", "off", "require"]
Switch = Literal["off", "on"]
Isa = Literal["baseline", "avx2", "avx512"]


class SettingError(ValueError):
    """An environment variable holds a value that is not allowed."""

    def __init__(self, name: str, found: str, allowed: str) -> None:
        super().__init__(f"environment variable {name} is {found!r}; allowed: {allowed}")


@dataclass(frozen=True)
class Settings:
    """The variables that determine how a library is found and built."""

    native: NativeMode = "auto"
    cache: Path | None = None
    prebuilt: tuple[Path, ...] = ()
    retry: bool = False
    verbose: bool = False
    lock_timeout: float = 600.0
    build_timeout: float = 1800.0


def read() -> Settings:
    """The current settings in the environment.

    Raises:
        SettingError: for a value that is not allowed.
    """
    cache = os.environ.get("DET_OPS_CACHE", "")
    prebuilt = [p for p in os.environ.get("DET_OPS_PREBUILT", "").split(os.pathsep) if p]
    return Settings(
        native=cast(NativeMode, _choice("DET_OPS_NATIVE", get_args(NativeMode), "auto")),
        cache=_folder("DET_OPS_CACHE", cache) if cache else None,
        prebuilt=tuple(_folder("DET_OPS_PREBUILT", p) for p in prebuilt),
        retry=_choice("DET_OPS_RETRY", ("0", "1"), "0") == "1",
        verbose=verbose(),
        lock_timeout=_seconds("DET_OPS_LOCK_TIMEOUT", 600.0),
        build_timeout=_seconds("DET_OPS_BUILD_TIMEOUT", 1800.0),
    )


def verbose() -> bool:
    """Whether DET_OPS_VERBOSE enables messages on stderr."""
    return _choice("DET_OPS_VERBOSE", ("0", "1"), "0") == "1"


def cuda_enabled() -> bool:
    """Whether DET_OPS_CUDA enables CUDA libraries built here."""
    return _choice("DET_OPS_CUDA", get_args(Switch), "off") == "on"


def isa() -> Isa | None:
    """The widest vector instructions that DET_OPS_ISA allows, or None for all of the CPU."""
    return cast("Isa | None", _choice("DET_OPS_ISA", get_args(Isa), "") or None)


def _choice(name: str, allowed: tuple[str, ...], default: str) -> str:
    value = os.environ.get(name, "") or default
    if value != default and value not in allowed:
        raise SettingError(name, value, ", ".join(allowed))
    return value


def _folder(name: str, value: str) -> Path:
    """Rejects a relative path, which would be another folder in each working directory."""
    path = Path(os.path.expanduser(value))
    if not path.is_absolute():
        raise SettingError(name, value, "an absolute path")
    return path


def _seconds(name: str, default: float) -> float:
    value = os.environ.get(name, "")
    try:
        seconds = float(value) if value else default
    except ValueError:
        seconds = math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise SettingError(name, value, "a number of seconds above 0")
    return seconds
