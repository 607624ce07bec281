"""The memory format of feature maps: results have that of the features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def memory_format_of(x: Tensor) -> torch.memory_format:
    """channels_last for maps (B, C, H, W) that are stored in that format only, else contiguous_format."""
    return named_format(x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous())


def named_format(channels_last: bool) -> torch.memory_format:
    """The memory format for the `channels_last` argument of backward operators."""
    return torch.channels_last if channels_last else torch.contiguous_format


def match_format(x: Tensor, features: Tensor) -> Tensor:
    """x (B, C, H, W) in the memory format of the features."""
    return x.contiguous(memory_format=memory_format_of(features))


def empty_maps(like: Tensor, shape: Sequence[Any], channels_last: bool | None = None) -> Tensor:
    """An empty result of this shape (B, C, H, W), in the dtype of `like`, and in its memory format or the given one."""
    memory_format = memory_format_of(like) if channels_last is None else named_format(channels_last)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format)
