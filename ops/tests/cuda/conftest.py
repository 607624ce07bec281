"""Fixtures for the tests of the CUDA kernels: without a GPU, `emulated` runs them."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def cuda(chosen_device: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Calls an operator's CUDA implementation by name: on the GPU with `--device cuda`, else emulated on the host."""
    if chosen_device == "cuda":
        from op_samples import native

        return native  # `operators_on_the_device` makes it run there
    from emulated import Emulated

    folder = tmp_path_factory.getbasetemp()
    # The workers of one run share what one of them builds.
    return Emulated(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The references consist of many small operations, which several threads slow down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
