"""Soft-NMS. Letters: N boxes, n kept. Boxes are xyxy, computed in float32, or float64 if given."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from det_ops import checks
from det_ops.reference import boxes as reference
from det_ops.registration import operator, unknown_length

SoftMethod = Literal["linear", "gaussian", "naive"]


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: SoftMethod = "linear",
) -> tuple[Tensor, Tensor]:
    """Soft-NMS (Bodla et al., 2017, section 3): overlapping boxes are given lower scores instead of being dropped.

    The box with the highest current score (the first of equals) is picked repeatedly. The scores of the remaining
    boxes then decay with their IoU to it. A box is dropped when its score falls below `min_score`.

    Args:
        boxes: (N, 4) floating point, xyxy.
        scores: (N,) floating point.
        threshold: IoU at or above which "linear" and "naive" reduce the score.
        sigma: Width of the Gaussian.
        min_score: Boxes with a lower score are dropped.
        method: "linear" multiplies by 1 - IoU, "gaussian" by exp(-IoU^2 / sigma) at any IoU, "naive" by 0.

    Returns:
        (n,) int64 indices in the order picked, and their (n,) decayed scores, without gradient.

    Raises:
        ValueError: for shapes other than these, an unknown method, or a sigma that is not positive.
        TypeError: for boxes or scores that are not floating point.
    """
    checks.check_scored_boxes(boxes, scores)
    checks.check_choice(method, "method", SoftMethod)
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}, expected a positive number")
    return _soft_nms(boxes.detach(), scores.detach(), threshold, sigma, min_score, method)


def _fake(boxes: Tensor, scores: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    kept = unknown_length()
    return boxes.new_empty(kept, dtype=torch.int64), scores.new_empty(kept)


_soft_nms = operator("soft_nms", reference.soft_nms, fake=_fake)
