"""Fixtures for the tests of the operators, and the path of `op_samples`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


@pytest.fixture(scope="session")
def native_library() -> None:
    """For tests of the native kernels: skips them if the library cannot be loaded."""
    from det_ops import libraries, native

    outcome = native.load(libraries.CPU)
    if not outcome.loaded:
        pytest.skip(f"no native kernels here: {outcome.reason}")


@pytest.fixture(scope="session")
def run_python() -> Callable[..., str]:
    """Runs Python code in a new process, with only the given variables of det-ops; returns its stdout."""

    def run(code: str, **environment: str) -> str:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DET_OPS_", "OMP_", "MKL_"))}
        keep = {k: v for k, v in os.environ.items() if k == "DET_OPS_CACHE"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**inherited, **keep, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), **environment},
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run
