"""In which precision the operators compute."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Half precisions are computed in float32."""
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32


def full(x: Tensor) -> Tensor:
    """A tensor of any shape (...) in the precision that it is computed in."""
    return x.to(compute_dtype(x.dtype))
