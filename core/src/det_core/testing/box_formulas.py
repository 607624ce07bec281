"""Simple formulas for boxes, with which tests compute expected results.

They share no code with `det_core.boxes`. Letters: A, B, n boxes. Boxes are xyxy; results have their dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (A, B) of boxes (A, 4) with boxes (B, 4)."""
    low, high = torch.maximum(a[:, None, :2], b[None, :, :2]), torch.minimum(a[:, None, 2:], b[None, :, 2:])
    both = (high - low).clamp(min=0).prod(2)
    areas = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
    return both / (areas[0][:, None] + areas[1][None] - both)


def encode(boxes: Tensor, targets: Tensor, stds: Tensor) -> Tensor:
    """Deltas (n, 4) that transform boxes (n, 4) into targets (n, 4): dx, dy, dw, dh, divided by stds (4,)."""
    size, target_size = boxes[:, 2:] - boxes[:, :2], targets[:, 2:] - targets[:, :2]
    shift = ((targets[:, 2:] + targets[:, :2]) - (boxes[:, 2:] + boxes[:, :2])) / 2
    return torch.cat([shift / size, (target_size / size).log()], 1) / stds


def decode(boxes: Tensor, deltas: Tensor, stds: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (n, 4) transformed by deltas (n, 4) times stds (4,), clipped to an image of this (height, width)."""
    extent, middle, deltas = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2, deltas * stds
    middle, half = middle + deltas[:, :2] * extent, extent * deltas[:, 2:].exp() / 2
    limit = torch.tensor([size[1], size[0]] * 2)
    return torch.minimum(torch.cat([middle - half, middle + half], 1).clamp(min=0), limit)


def box_stds(centre: float, size: float) -> Tensor:
    """Standard deviations (4,) float64 of deltas: `centre` for dx and dy, `size` for dw and dh."""
    return torch.tensor([centre, centre, size, size], dtype=torch.float64)
