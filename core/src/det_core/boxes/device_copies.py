"""Copies between host and device that wait for a GPU at most once.

Letters: n elements of one array. A copy to a GPU from pageable memory waits for all work before it, one from pinned
memory does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def send(values: Tensor, device: torch.device) -> Tensor:
    """A tensor (...) in host memory on a device, without waiting."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values if device.type == "cpu" else values.to(device, non_blocking=True)


def send_indices(indices: Sequence[NDArray[np.int64]], device: torch.device) -> list[Tensor]:
    """Arrays (n,) int64 of several lengths as tensors of a device, in one copy, without waiting."""
    packed = send(torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *indices])), device)
    return list(packed.split([len(x) for x in indices]))


def rows_of(masks: Sequence[Tensor]) -> list[Tensor]:
    """int64 indices, ascending, of what each mask (n,) bool selects; waits once."""
    found = torch.cat(list(masks)).numpy(force=True)
    ends = np.cumsum([len(mask) for mask in masks])[:-1]
    return send_indices([np.flatnonzero(part) for part in np.split(found, ends)], masks[0].device)
