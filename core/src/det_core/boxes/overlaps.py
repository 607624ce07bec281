"""Areas and overlaps of boxes. Letters: N and M boxes. Boxes are xyxy."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-6  # minimum of the denominator, as in the reference


def box_area(boxes: Tensor) -> Tensor:
    """(...) areas of boxes (..., 4) in square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """(N, M) intersection over union of boxes (N, 4) and (M, 4); 0 if both have no area."""
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    union = box_area(boxes)[:, None] + box_area(others)[None] - inter
    return inter / union.clamp(min=EPS)


def aligned_giou(boxes: Tensor, others: Tensor) -> Tensor:
    """(N,) generalised IoU of pairs (N, 4) and (N, 4), in -1..1 (Rezatofighi et al., 2019, algorithm 1)."""
    inter = (
        (torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])).clamp(min=0).prod(-1)
    )
    union = (box_area(boxes) + box_area(others) - inter).clamp(min=EPS)
    hull = (
        (torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])).clamp(min=0).prod(-1)
    )
    hull = hull.clamp(min=EPS)
    return inter / union - (hull - union) / hull
