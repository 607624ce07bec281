"""Gradients that are not reproducible say so when deterministic algorithms are asked for."""

import pytest
import torch

from det_ops import dispatch, registration


@pytest.fixture
def native_cuda(monkeypatch):
    """As if native CUDA kernels were loaded."""
    monkeypatch.setattr(dispatch, "native_loaded", lambda device: True)


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", registration.UNORDERED)
def test_an_unordered_gradient_is_an_error(native_cuda, deterministic, name):
    with pytest.raises(RuntimeError, match=f"the CUDA kernel of det_ops.{name}'s gradient is not deterministic"):
        registration.alert_not_deterministic(name, "cuda")


def test_or_a_warning(native_cuda, deterministic):
    torch.use_deterministic_algorithms(True, warn_only=True)
    with pytest.warns(UserWarning, match="is not deterministic; unset DET_OPS_CUDA for the reference"):
        registration.alert_not_deterministic("roi_pool", "cuda")


def test_the_cpu_and_the_reference_have_nothing_to_say(deterministic):
    registration.alert_not_deterministic("roi_pool", "cpu")
    registration.alert_not_deterministic("roi_pool", "cuda")  # opt-in kernels are off


def test_nothing_is_said_unless_asked(native_cuda):
    registration.alert_not_deterministic("roi_pool", "cuda")
