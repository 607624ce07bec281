"""Copies between host and device that wait for a GPU at most once.

Letters: n elements of one array, b bytes of several tensors. A copy to a GPU from pageable memory waits for all work
before it, one from pinned memory does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from attrs import evolve, frozen
from numpy.typing import NDArray
from torch import Tensor


def send(values: Tensor, device: torch.device) -> Tensor:
    """A tensor (...) in host memory on a device, without waiting."""
    if device.type == "cuda" and not values.is_pinned():
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


@frozen(eq=False)
class Parcel:
    """Tensors of several shapes and types in one buffer (b,) uint8, which moves in one copy.

    pieces: of each tensor its first byte, shape and dtype.
    """

    buffer: Tensor
    pieces: tuple[tuple[int, torch.Size, torch.dtype], ...]

    @classmethod
    def of(cls, tensors: Sequence[Tensor], *, pinned: bool = False) -> Parcel:
        """Copies of tensors (...) that are on one device. pinned: in pinned memory, for tensors of the host."""
        # Larger elements first: each tensor then begins at a multiple of its element's size, as views require.
        order = sorted(range(len(tensors)), key=lambda at: -tensors[at].element_size())
        parts = [tensors[at].contiguous().reshape(-1).view(torch.uint8) for at in order]
        ends = list(accumulate((len(part) for part in parts), initial=0))
        out = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=True) if pinned else None
        buffer = torch.cat(parts, out=out) if parts else torch.zeros(0, dtype=torch.uint8)
        first = dict(zip(order, ends, strict=False))
        return cls(buffer, tuple((first[at], x.shape, x.dtype) for at, x in enumerate(tensors)))

    def sent(self, device: torch.device) -> Parcel:
        """On a device, without waiting."""
        return evolve(self, buffer=send(self.buffer, device))

    def on_host(self) -> Parcel:
        """In host memory; waits."""
        return evolve(self, buffer=self.buffer.cpu())

    def tensors(self) -> list[Tensor]:
        """The tensors (...) in their order, contiguous; they share the buffer's memory."""
        return [
            self.buffer[first : first + shape.numel() * dtype.itemsize].view(dtype).view(shape)
            for first, shape, dtype in self.pieces
        ]
