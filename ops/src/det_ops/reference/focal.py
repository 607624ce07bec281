"""The sigmoid focal loss. Letters: N rows, C classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from det_ops.reference.precision import full


def sigmoid_focal_loss(logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float) -> Tensor:
    """(N, C) unreduced, float32 or float64; see `det_ops.sigmoid_focal_loss`."""
    logits = full(logits)
    classes = torch.arange(logits.shape[1], device=logits.device)
    positive = target[:, None] == classes
    # log p_t = logsigmoid(x) for positives, logsigmoid(-x) for negatives: exact where a clamped log saturates.
    signed = torch.where(positive, logits, -logits)
    share = torch.where(positive, logits.new_tensor(alpha), logits.new_tensor(1 - alpha))
    loss = share * torch.sigmoid(-signed) ** gamma * -F.logsigmoid(signed)
    return loss * _row_weight(target, weight, logits)[:, None]


def _row_weight(target: Tensor, weight: Tensor | None, logits: Tensor) -> Tensor:
    """(N,) 0 for ignored rows, the weight of the row's class where one is given, else 1."""
    rows = (target >= 0).to(logits.dtype)
    if weight is None or weight.numel() == 0:
        return rows
    known = (target >= 0) & (target < len(weight))
    return torch.where(known, weight.to(logits.dtype)[target.clamp(0, len(weight) - 1)], rows)
