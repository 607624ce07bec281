"""Fixtures for the tests of the operators, and the path of `op_samples`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--device cuda`, tests of what runs on the CPU alone are left out."""
    if config.getoption("device") == "cpu":
        return
    host = HERE / "native"  # the loader of the libraries
    left_out = [i for i in items if host in i.path.parents or i.get_closest_marker("cpu")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(scope="session")
def kernels_of_the_device(chosen_device: str) -> None:
    """Fails the tests if the CUDA kernels are not those that run: the fallbacks would pass them as well."""
    if chosen_device == "cuda":
        from det_ops import libraries, native
        from det_ops.native import settings

        assert settings.cuda_enabled(), "--device cuda needs DET_OPS_CUDA=on"
        outcome = native.load(libraries.CUDA)
        assert outcome.loaded, f"no CUDA kernels: {outcome.reason}; {outcome.remedy}"


@pytest.fixture(autouse=True)
def operators_on_the_device(chosen_device: str, kernels_of_the_device: None) -> Iterator[None]:
    """With `--device cuda`, the operators that a test calls run on the GPU."""
    if chosen_device == "cpu":
        yield
        return
    from on_device import OnDevice

    with OnDevice(chosen_device):
        yield


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
