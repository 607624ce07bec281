"""Random choices are those of torch's tensors, and the global generator is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from det_core.data.random_numbers import happens, seeded


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1 / 3, 1.0])
def test_what_happens_is_what_torch_decides(probability: float) -> None:
    with seeded(7):
        expected = [bool(torch.rand(1) < probability) for _ in range(500)]
        after = torch.rand(1)
    with seeded(7):
        assert [happens(probability) for _ in range(500)] == expected
        assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize("probability", [0.7, 0.9, 0.1])
@pytest.mark.parametrize("step", [-1, 0, 1])
def test_numbers_beside_the_probability_are_compared_in_float32(
    probability: float, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float32's 0.7 is less than 0.7, and 0.9's and 0.1's are not."""
    near = np.float32(probability)
    number = torch.tensor([near if step == 0 else np.nextafter(near, np.float32(step), dtype=np.float32)])
    monkeypatch.setattr(torch, "rand", lambda *_: number)
    assert happens(probability) == bool(number < probability)


def test_the_generator_is_as_before_also_after_an_error() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with seeded(5):
        first = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)

    def failing() -> None:
        with seeded(5):
            assert torch.equal(torch.rand(4), first)
            raise ValueError("of a transform")

    with pytest.raises(ValueError, match="of a transform"):
        failing()
    assert torch.equal(torch.get_rng_state(), before)
