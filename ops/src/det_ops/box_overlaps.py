"""Overlaps of boxes. Letters: N boxes, M others. Boxes are xyxy, computed in float32, or float64 if given."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from det_ops import checks
from det_ops.reference import boxes as reference
from det_ops.reference.precision import compute_dtype
from det_ops.registration import operator

OverlapMode = Literal["iou", "iof", "giou"]


def box_overlaps(
    boxes: Tensor, others: Tensor, mode: OverlapMode = "iou", aligned: bool = False, offset: int = 0
) -> Tensor:
    """Overlaps of boxes: IoU, intersection over the first box's area (IoF), or generalised IoU (Rezatofighi, 2019).

    Denominators are at least 1e-6, so the overlap of boxes without area is 0. Differentiable in both.

    Args:
        boxes: (N, 4) floating point, xyxy.
        others: (M, 4), or (N, 4) if aligned; of the same dtype.
        mode: "iou", "iof" or "giou".
        aligned: Whether to compare pair by pair instead of every box with every other.
        offset: 0, or 1 to add one pixel to every width and height.

    Returns:
        (N, M), or (N,) if aligned; float32, or float64 for such boxes.

    Raises:
        ValueError: for shapes, a mode or an offset other than these.
        TypeError: for boxes that are not floating point, or of two dtypes.
    """
    checks.check_box_pair(boxes, others, "others")
    checks.check_choice(mode, "mode", OverlapMode)
    checks.check_pixel_offset(offset)
    if aligned and boxes.shape != others.shape:
        raise ValueError(f"aligned needs as many others as boxes, found {others.shape[0]} and {boxes.shape[0]}")
    if torch.is_grad_enabled() and (boxes.requires_grad or others.requires_grad):
        # The reference has a gradient already, and is fused when compiled.
        return reference.box_overlaps(boxes, others, mode, aligned, offset)
    return _box_overlaps(boxes, others, mode, aligned, offset)


def _fake(boxes: Tensor, others: Tensor, mode: str, aligned: bool, offset: int) -> Tensor:
    shape = boxes.shape[:1] if aligned else (boxes.shape[0], others.shape[0])
    return boxes.new_empty(shape, dtype=compute_dtype(boxes.dtype))


_box_overlaps = operator("box_overlaps", reference.box_overlaps, fake=_fake)
