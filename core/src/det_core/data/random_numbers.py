"""Random numbers of torch's global generator for the CPU, without the overhead of its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(number: int) -> Iterator[None]:
    """The generator seeded by a number; then it is as before. As `torch.random.fork_rng`, for the CPU alone."""
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(number)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


def happens(probability: float) -> bool:
    """Whether an event happens: `torch.rand(1) < probability`, which torch compares in float32."""
    return torch.rand(1).item() < float(np.float32(probability))
