"""Finds the CUDA compiler; raises if it is missing, does not run or does not match torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import torch

from det_ops.native.outcome import CannotBuild
from det_ops.native.run import output

USUAL = Path("/usr/local/cuda/bin/nvcc")
_GET = "install the CUDA toolkit that matches torch.version.cuda and set CUDA_HOME to its folder"


def nvcc() -> Path:
    """The path of the compiler, found without running it.

    Raises:
        CannotBuild: if torch has no CUDA, or there is no nvcc.
    """
    if torch.version.cuda is None:
        raise CannotBuild("this torch is built without CUDA", "install a CUDA build of torch (pytorch.org)")
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name):
            return _asked(name, Path(os.environ[name]))
    found = shutil.which("nvcc")
    if found is None and not USUAL.is_file():
        raise CannotBuild("there is no nvcc: CUDA_HOME is not set and none is on PATH or in /usr/local/cuda", _GET)
    return Path(found) if found else USUAL


def _asked(name: str, folder: Path) -> Path:
    program = folder / "bin" / "nvcc"
    if not program.is_file():
        raise CannotBuild(f"{name} is {folder}, which holds no bin/nvcc", f"correct {name}, or {_GET}")
    return program


def home(program: Path) -> Path:
    """The folder of the toolkit of an nvcc, which may be a link or a script that calls the real one."""
    plain = program.absolute().parents[1]
    for candidate in (plain, program.resolve().parents[1]):
        if (candidate / "include" / "cuda_runtime.h").is_file():
            return candidate
    try:
        command = [str(program), "--dryrun", "-x", "cu", os.devnull, "-o", os.devnull]
        output_text = subprocess.run(command, capture_output=True, text=True, timeout=60).stderr  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        output_text = ""
    top = re.search(r"^#\$ TOP=(.+)$", output_text, re.MULTILINE)
    folder = Path(os.path.normpath(top[1])) if top else None
    return folder if folder and (folder / "bin" / "nvcc").is_file() else plain


def version(program: Path) -> str:
    """The version that nvcc reports, such as "nvcc 13.0.88".

    Raises:
        CannotBuild: if it does not run, or its major version is not that of torch.
    """
    text = output([str(program), "--version"], "nvcc", _GET)
    found = re.search(r"release (\d+)\.(\d+)(?:, V([\d.]+))?", text)
    if found is None:
        raise CannotBuild(f"nvcc ({program}) does not report its version", _GET)
    ours = str(torch.version.cuda)
    if found[1] != ours.partition(".")[0]:
        mismatch = (
            f"nvcc is from CUDA {found[1]}.{found[2]} and torch from CUDA {ours}; expected the same major version"
        )
        raise CannotBuild(mismatch, f"set CUDA_HOME to the toolkit of CUDA {ours.partition('.')[0]}, or change torch")
    return f"nvcc {found[3] or f'{found[1]}.{found[2]}'}"
