"""Group normalisation that keeps its precision in channels-last memory.

Letters: N images, C channels, G groups, H W size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEP = 8  # pixels between those that the estimate of the mean is from


class GroupNorm(nn.GroupNorm):
    """torch's group norm (Wu and He, Group Normalization, 2018), also where the mean is large beside the deviation.

    In channels-last memory on a CPU torch computes the variance as the difference of two large sums, which leaves no
    correct digit once the mean is a thousand times the deviation, as in a group of one channel on a flat image.
    Group norm does not change if a constant is subtracted from a group, so an estimate of its mean is subtracted first.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if loses_precision(x):
            x = x - self._estimate(x.detach())
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def _estimate(self, x: Tensor) -> Tensor:
        """(N, C, 1, 1) for each channel the mean of its group over some pixels."""
        means = x[:, :, ::STEP, ::STEP].mean((2, 3)).unflatten(1, (self.num_groups, -1)).mean(2, keepdim=True)
        return means.expand(-1, -1, self.num_channels // self.num_groups).flatten(1)[:, :, None, None]


def loses_precision(x: Tensor) -> bool:
    """Whether torch's kernel for this input computes the variance from large sums."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.dim() != 4:
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
