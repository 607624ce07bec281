"""The precision of the computation."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the computation: float32 for half precisions."""
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32


def full(x: Tensor) -> Tensor:
    """A tensor of any shape (...) in the dtype of the computation."""
    return x.to(compute_dtype(x.dtype))
