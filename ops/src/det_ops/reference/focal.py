"""The sigmoid focal loss. Letters: N rows, C classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from det_ops.reference.precision import full


def sigmoid_focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float, summed: bool
) -> Tensor:
    """(N, C), or its sum; float32 or float64; see `det_ops.sigmoid_focal_loss`."""
    _check_target(target, logits.shape[1])
    logits = full(logits)
    classes = torch.arange(logits.shape[1], device=logits.device)
    positive = target[:, None] == classes
    # log p_t = logsigmoid(x) for positives, logsigmoid(-x) for negatives: exact where a clamped log saturates.
    signed = torch.where(positive, logits, -logits)
    share = torch.where(positive, logits.new_tensor(alpha), logits.new_tensor(1 - alpha))
    loss = share * torch.sigmoid(-signed) ** gamma * -F.logsigmoid(signed)
    loss = loss * _row_weight(target, weight, logits)[:, None]
    return loss.sum() if summed else loss.contiguous()


def _check_target(target: Tensor, classes: int) -> None:
    """Raises for a target (N,) above `classes`. On the CPU only: elsewhere, reading the data would synchronise."""
    if target.device.type == "cpu" and len(target) and int(target.max()) > classes:
        row = int((target > classes).nonzero()[0])
        text = f"expected at most {classes} (background), or a negative one to ignore the row"
        raise RuntimeError(f"target has {int(target[row])} in row {row}, {text}")


def _row_weight(target: Tensor, weight: Tensor | None, logits: Tensor) -> Tensor:
    """(N,) 0 for ignored rows, the weight of the row's class if weights are given, else 1."""
    rows = (target >= 0).to(logits.dtype)
    if weight is None or weight.numel() == 0:
        return rows
    known = (target >= 0) & (target < len(weight))
    return torch.where(known, weight.to(logits.dtype)[target.clamp(0, len(weight) - 1)], rows)
