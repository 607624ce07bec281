"""The layout of weights in memory.

Letters: O output and C input channels, kh kw kernel.
"""

from __future__ import annotations

import torch
from torch import nn


def to_channels_last(module: nn.Module) -> None:
    """Store the kernels (O, C, kh, kw) of all convolutions in channels-last order, in place.

    Convolutions on CPUs and tensor cores compute in this order; they rearrange other weights in every call. Training,
    `load_detector` and `for_inference` call this function; building a detector does not.
    """
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
