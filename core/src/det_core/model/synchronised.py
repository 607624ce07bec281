"""What parts of a detector exchange between the processes of a training, and batch norm over all of them.

Letters: N images, C channels, H W size.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed as dist

from det_core.structures import full_precision


def several_ranks() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum (...) of a value (...) over all ranks, with gradient: on each rank, the sum of those of all ranks."""
    if not several_ranks():
        return value
    total: Tensor = _SumOverRanks.apply(value)
    return total


class _SumOverRanks(torch.autograd.Function):
    """torch.distributed.nn has it too, but keeps the group that exists when it is imported.

    That group's threads then live until the interpreter ends, and one that frees a tensor by then aborts the process.
    """

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return _SumOverRanks.forward(ctx, gradient)


def normalise_over_ranks(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor | None, variance: Tensor | None, momentum: float, eps: float
) -> Tensor:
    """Batch norm (Ioffe and Szegedy, 2015) of x (N, C, H, W) with the statistics of the values of all ranks.

    A rank may have N = 0 as long as all ranks take part. The mean and the variance are summed one after the other,
    which costs an exchange but no precision. Works on any device, unlike torch's SyncBatchNorm, which requires CUDA.

    Args:
        x: floating point; statistics are computed in float32 or float64.
        weight, bias: (C,).
        mean, variance: (C,) running statistics, updated in place if given.
        momentum: the part of the new statistics in the running ones.
        eps: added to the variance.
    """
    wide = full_precision(x)
    count = sum_over_ranks(wide.new_tensor([x.numel() / x.shape[1]])).clamp(min=1)
    center = sum_over_ranks(wide.sum((0, 2, 3))) / count
    centered = wide - center[:, None, None]
    spread = sum_over_ranks(centered.square().sum((0, 2, 3))) / count
    if mean is not None and variance is not None:
        with torch.no_grad():
            mean.lerp_(center.to(mean), momentum)
            variance.lerp_((spread * count / (count - 1).clamp(min=1)).to(variance), momentum)
    scale = weight * (spread + eps).rsqrt()
    return (centered * scale[:, None, None] + bias[:, None, None]).to(x.dtype)
