"""The moving average of a detector's weights and buffers, in few operator calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from det_core.torch_internals import copy_all

Update = Callable[[Sequence[Tensor], Sequence[Tensor], object], None]


def averaging(decay: float) -> Update:
    """Updates averages (...) of one dtype with the current tensors (...), as torch's `get_ema_multi_avg_fn`.

    Whole numbers, such as the batches that each norm has seen, are computed together; torch makes four calls for each.
    """
    of_floats = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(averages: Sequence[Tensor], current: Sequence[Tensor], count: object) -> None:
        if averages[0].is_floating_point() or averages[0].is_complex():
            of_floats(averages, current, count)
            return
        before, now = (torch.cat([x.flatten() for x in tensors]) for tensors in (averages, current))
        after = (before * decay + now * (1 - decay)).to(before.dtype)
        parts = after.split([x.numel() for x in averages])
        copy_all(averages, [part.view_as(x) for part, x in zip(parts, averages, strict=True)])

    return update
