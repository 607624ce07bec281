"""Boxes in place of proposals, where none are given. Letters: H W size of an image. Boxes are xyxy."""

from __future__ import annotations

import torch
from torch import Tensor


def spread_boxes(count: int, size: tuple[int, int]) -> Tensor:
    """(count, 4) float32 boxes of random position and size in an image of `size` (H, W), equal in every run."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, 2, generator=generator).sort(1).values
    height, width = size
    return (corners * torch.tensor([width, height])).flatten(1)
