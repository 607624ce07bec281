"""The sigmoid focal loss. Letters: N rows (anchors), C classes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["none", "sum", "mean"]


def sigmoid_focal_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: Tensor | None = None,
    reduction: Reduction = "none",
) -> Tensor:
    """-alpha_t (1 - p_t)^gamma log p_t (Lin et al., Focal Loss, 2017, equation 5), with one class per row.

    Args:
        logits: (N, C) floating point.
        target: (N,) int64: 0..C-1 the class, C background, negative ignored (the row counts 0).
        gamma: focusing exponent, at least 0.
        alpha: share of the positives.
        weight: (C,) factor of the rows of each class, or None; background has 1.
        reduction: "none", "sum", or "mean" over all N * C elements.

    Returns:
        (N, C), or a scalar; float32, or float64 for such logits. Differentiable in the logits, without an (N, C)
        matrix of losses where reduced.

    Raises:
        ValueError: for shapes other than these, a negative gamma, or an unknown reduction.
        TypeError: for logits that are not floating point, or a target that is not int64.
        RuntimeError: on the CPU, for a target above C.
    """
    if logits.dim() != 2:
        raise ValueError(f"logits have shape {tuple(logits.shape)}, expected (N, C)")
    if not logits.is_floating_point():
        raise TypeError(f"logits have dtype {logits.dtype}, expected a floating point one")
    if target.shape != logits.shape[:1]:
        raise ValueError(f"target has shape {tuple(target.shape)}, expected ({logits.shape[0]},) to match logits")
    if target.dtype != torch.int64:
        raise TypeError(f"target has dtype {target.dtype}, expected torch.int64")
    if weight is not None and weight.shape != logits.shape[1:]:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected ({logits.shape[1]},)")
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}, expected at least 0")
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction is {reduction!r}, expected 'none', 'sum' or 'mean'")
    factor = None if weight is None else weight.detach()
    loss: Tensor = torch.ops.det.sigmoid_focal_loss(logits, target, factor, gamma, alpha, reduction != "none")
    return loss / max(logits.numel(), 1) if reduction == "mean" else loss
