"""Assignment of objects to boxes. Letters: N boxes, M objects. Boxes are xyxy, in float32, or float64 if given."""

from __future__ import annotations

import torch
from torch import Tensor

from det_ops import checks
from det_ops.reference import boxes as reference
from det_ops.reference.precision import full
from det_ops.registration import operator


def max_iou_assign(
    boxes: Tensor,
    objects: Tensor,
    positive: float,
    negative: float,
    min_positive: float = 0.0,
    low_quality: bool = True,
    all_ties: bool = True,
) -> tuple[Tensor, Tensor]:
    """Assigns an object or the background to each box (Ren et al., Faster R-CNN, 2015, section 3.1.2).

    The N x M matrix of overlaps is never stored. A box whose best IoU is below `negative` is background. A box whose
    best IoU is at least `positive` is assigned its best object (the first of equals). All other boxes are ignored.
    Then, with `low_quality`, each object in turn whose best IoU is at least `min_positive` is assigned to every box
    with exactly this IoU (only to the first one without `all_ties`); a later object overrides an earlier one.
    A 0/0 or NaN overlap counts as 0.

    Args:
        boxes: (N, 4) floating point, xyxy.
        objects: (M, 4) of the same dtype, possibly none.
        positive: IoU at or above which a box is positive.
        negative: IoU below which a box is background.
        min_positive: The minimum IoU of an object's best box for `low_quality`.
        low_quality: Whether an object is assigned to its best boxes even if their IoU is below `positive`.
        all_ties: Whether it is assigned to all boxes of equal IoU.

    Returns:
        (N,) int64: object index + 1, 0 for background, -1 for ignored; and (N,) the best IoU, float32 or float64.

    Raises:
        ValueError: for shapes other than these.
        TypeError: for boxes that are not floating point, or of two dtypes.
    """
    checks.check_box_pair(boxes, objects, "objects")
    thresholds = positive, negative, min_positive
    return _max_iou_assign(boxes.detach(), objects.detach(), *thresholds, low_quality, all_ties)


_max_iou_assign = operator(
    "max_iou_assign",
    reference.max_iou_assign,
    fake=lambda boxes, *_: (boxes.new_empty(boxes.shape[0], dtype=torch.int64), full(boxes.new_empty(boxes.shape[0]))),
)
