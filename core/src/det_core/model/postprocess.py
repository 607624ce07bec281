"""From scores and boxes to detections in the original image.

Letters: R regions or anchors, K foreground classes, n detections. Boxes are xyxy.
"""

from __future__ import annotations

from attrs import frozen
from torch import Tensor

import det_ops
from det_core.structures import ImageInfo


def to_original(boxes: Tensor, info: ImageInfo) -> Tensor:
    """Boxes (..., 4) from network pixels to pixels of the original image."""
    y, x = info.scale
    return boxes / boxes.new_tensor([x, y, x, y])


@frozen(eq=False)
class Chosen:
    """What survived: boxes (n, 4), scores (n,), labels (n,) int64, and rows (n,) int64 of the input, best first."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    rows: Tensor


def class_wise_nms(
    boxes: Tensor, scores: Tensor, *, score_threshold: float, nms_threshold: float, max_detections: int
) -> Chosen:
    """Score threshold over (region, class) pairs, NMS inside each class, the best of all.

    Args:
        boxes: (R, K, 4), or (R, 4) where all classes share one box.
        scores: (R, K) probabilities.
    """
    rows, labels = (scores > score_threshold).nonzero(as_tuple=True)
    pair_scores = scores[rows, labels]
    pair_boxes = boxes[rows, labels] if boxes.dim() == 3 else boxes[rows]
    keep = det_ops.batched_nms(pair_boxes, pair_scores, labels, nms_threshold)[:max_detections]
    return Chosen(pair_boxes[keep], pair_scores[keep], labels[keep], rows[keep])
