"""The option `--device`: where the tests of operators and the golden cases run them."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    help_text = "device of the operators (ops/tests) and of the golden cases (tests/parity); other tests ignore it"
    parser.addoption("--device", choices=("cpu", "cuda"), default="cpu", help=help_text)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("device") == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise pytest.UsageError("--device cuda: torch finds no CUDA device")


@pytest.fixture(scope="session")
def chosen_device(request: pytest.FixtureRequest) -> str:
    """The value of `--device`."""
    name: str = request.config.getoption("device")
    return name
