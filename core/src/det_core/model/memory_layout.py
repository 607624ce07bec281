"""The layout of weights in memory.

Letters: O output and C input channels, kh kw kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def to_channels_last(module: nn.Module) -> None:
    """Store the kernels (O, C, kh, kw) of all convolutions in channels-last order, in place.

    Convolutions on CPUs and tensor cores compute in this order; they rearrange other weights in every call. Training,
    `load_detector` and `for_inference` call this function; building a detector does not.
    """
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = _channels_last(parameter.data)


def _channels_last(kernel: Tensor) -> Tensor:
    """(O, C, kh, kw) in channels-last order, with the strides of that order also where kh and kw are 1.

    There, torch takes any strides for channels-last and keeps them; DistributedDataParallel would then warn that those
    of the gradients are others.
    """
    _, channels, height, width = kernel.shape
    strides = (channels * height * width, 1, channels * width, channels)
    if kernel.stride() == strides:
        return kernel
    return torch.empty_strided(kernel.shape, strides, dtype=kernel.dtype, device=kernel.device).copy_(kernel)
