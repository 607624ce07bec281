"""The sigmoid focal loss. Letters: N rows (anchors), C classes."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from det_ops import checks
from det_ops.reference import focal as reference
from det_ops.reference.precision import full
from det_ops.registration import derivative, operator

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
        target: (N,) int64: the class in 0..C-1, C for background, negative for rows to ignore (their loss is 0).
        gamma: Focusing exponent, at least 0.
        alpha: Weight of the positives; the negatives have 1 - alpha.
        weight: (C,) factor for the rows of each class, or None; background has 1.
        reduction: "none", "sum", or "mean" over all N * C elements.

    Returns:
        (N, C), or a scalar; float32, or float64 for such logits. Differentiable in the logits. If reduced, the (N, C)
        matrix of losses is not stored.

    Raises:
        ValueError: for shapes other than these, a negative gamma, or an unknown reduction.
        TypeError: for logits that are not floating point, or a target that is not int64.
        RuntimeError: on the CPU, for a target above C.
    """
    if logits.dim() != 2:
        raise ValueError(f"logits have shape {tuple(logits.shape)}, expected (N, C)")
    checks.check_floating(logits, "logits have")
    checks.check_shape(target, "target has", logits.shape[:1], " to match logits")
    checks.check_int64(target, "target has")
    if weight is not None:
        checks.check_shape(weight, "weight has", logits.shape[1:])
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}, expected at least 0")
    checks.check_choice(reduction, "reduction", Reduction)
    factor = None if weight is None else weight.detach()
    loss = _sigmoid_focal_loss(logits, target, factor, gamma, alpha, reduction != "none")
    return loss / max(logits.numel(), 1) if reduction == "mean" else loss


_sigmoid_focal_loss = operator(
    "sigmoid_focal_loss",
    reference.sigmoid_focal_loss,
    fake=lambda logits, *options: full(logits.new_empty(() if options[-1] else logits.shape)),
)
derivative("sigmoid_focal_loss", of=("logits",), omitted={"summed": lambda grad: grad.dim() == 0})
