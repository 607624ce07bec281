"""Suppression, overlaps and assignment of boxes.

Letters: N boxes, M others or objects, n kept. Boxes are xyxy. Coordinates are computed in float32, or float64 if given.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from det_ops.reference import boxes as reference

SoftMethod = Literal["linear", "gaussian", "naive"]
OverlapMode = Literal["iou", "iof", "giou"]


def _check_boxes(boxes: Tensor, name: str = "boxes") -> None:
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} have shape {tuple(boxes.shape)}, expected (N, 4)")
    if not boxes.is_floating_point():
        raise TypeError(f"{name} have dtype {boxes.dtype}, expected a floating point one; convert them with .float()")


def _check_scored(boxes: Tensor, scores: Tensor) -> None:
    _check_boxes(boxes)
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores have shape {tuple(scores.shape)}, expected ({boxes.shape[0]},) to match boxes")
    if not scores.is_floating_point():
        raise TypeError(f"scores have dtype {scores.dtype}, expected a floating point one; convert them with .float()")


def _check_groups(groups: Tensor, scores: Tensor) -> None:
    if groups.shape != scores.shape:
        raise ValueError(f"groups have shape {tuple(groups.shape)}, expected {tuple(scores.shape)} to match scores")
    if groups.is_floating_point() or groups.is_complex():
        raise TypeError(f"groups have dtype {groups.dtype}, expected an integer one; convert them with .long()")


def nms(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    offset: int = 0,
    score_threshold: float = 0.0,
    max_num: int | None = None,
) -> Tensor:
    """Greedy non-maximum suppression.

    Boxes go in stable descending order of score (NaN first); a box is suppressed if its IoU with a kept one is
    strictly greater than `threshold`, which is rounded to the precision of the computation first (so that an IoU equal
    to it never suppresses). A 0/0 IoU suppresses nothing.

    Args:
        boxes: (N, 4) floating point, xyxy.
        scores: (N,) floating point.
        threshold: IoU above which the lower-scored box goes.
        offset: 0, or 1 to add one pixel to every width and height, the inclusive-pixel convention of 2019.
        score_threshold: boxes that do not score more are left out beforehand; 0 leaves out none.
        max_num: at most this many are returned; None for all.

    Returns:
        (n,) int64 indices of the kept boxes, best first.

    Raises:
        ValueError: for shapes other than these, an offset other than 0 and 1, or a negative max_num.
        TypeError: for boxes or scores that are not floating point.
    """
    _check_scored(boxes, scores)
    if offset not in (0, 1):
        raise ValueError(f"offset is {offset}, expected 0 or 1")
    if max_num is not None and max_num < 0:
        raise ValueError(f"max_num is {max_num}, expected at least 0, or None for all")
    if score_threshold > 0:
        candidates = (scores > score_threshold).nonzero().flatten()
        kept = candidates[torch.ops.det.nms(boxes[candidates], scores[candidates], threshold, offset)]
    else:
        kept = torch.ops.det.nms(boxes, scores, threshold, offset)
    return kept if max_num is None else kept[:max_num]


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression inside each group (class, level, image), exactly.

    No coordinate offsets are used, so groups never mix and nothing is rounded.

    Args:
        boxes: (N, 4) floating point, xyxy.
        scores: (N,) floating point.
        groups: (N,) integer.
        threshold: as in `nms`.

    Returns:
        (n,) int64 indices of the kept boxes of all groups, in stable descending order of score.

    Raises:
        ValueError: for shapes other than these.
        TypeError: for boxes or scores that are not floating point, or groups that are not integers.
    """
    _check_scored(boxes, scores)
    _check_groups(groups, scores)
    kept: Tensor = torch.ops.det.batched_nms(boxes, scores, groups.long(), threshold)
    return kept


def nms_padded(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, max_out: int) -> tuple[Tensor, Tensor]:
    """`batched_nms` with a result of fixed size, for compiled and captured code that must not wait for the data.

    Args:
        boxes: (N, 4) floating point, xyxy.
        scores: (N,) floating point.
        groups: (N,) integer.
        threshold: as in `nms`.
        max_out: how many indices to return.

    Returns:
        (max_out,) int64 indices, best first, filled up with -1; and how many are real, an int64 scalar tensor.

    Raises:
        ValueError: for shapes other than these, or a negative max_out.
        TypeError: for boxes or scores that are not floating point, or groups that are not integers.
    """
    _check_scored(boxes, scores)
    _check_groups(groups, scores)
    if max_out < 0:
        raise ValueError(f"max_out is {max_out}, expected at least 0")
    kept, count = torch.ops.det.nms_padded(boxes, scores, groups.long(), threshold, max_out)
    return kept, count


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: SoftMethod = "linear",
) -> tuple[Tensor, Tensor]:
    """Soft-NMS (Bodla et al., 2017, section 3): overlapping boxes lose score instead of going.

    Again and again the box with the highest current score is picked (the first of equals) and the scores of the rest
    decay with their IoU to it; a box goes once its score is below `min_score`.

    Args:
        boxes: (N, 4) floating point, xyxy.
        scores: (N,) floating point.
        threshold: IoU from which linear and naive act.
        sigma: width of the Gaussian.
        min_score: boxes below it are dropped.
        method: "linear" multiplies by 1 - IoU, "gaussian" by exp(-IoU^2 / sigma) always, "naive" by 0.

    Returns:
        (n,) int64 indices in the order picked, and their (n,) decayed scores, without gradient.

    Raises:
        ValueError: for shapes other than these, an unknown method, or a sigma that is not positive.
        TypeError: for boxes or scores that are not floating point.
    """
    _check_scored(boxes, scores)
    if method not in ("linear", "gaussian", "naive"):
        raise ValueError(f"method is {method!r}, expected 'linear', 'gaussian' or 'naive'")
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}, expected a positive number")
    kept, decayed = torch.ops.det.soft_nms(boxes.detach(), scores.detach(), threshold, sigma, min_score, method)
    return kept, decayed


def box_overlaps(
    boxes: Tensor, others: Tensor, mode: OverlapMode = "iou", aligned: bool = False, offset: int = 0
) -> Tensor:
    """Overlaps of boxes: IoU, intersection over the first box's area (IoF), or generalised IoU (Rezatofighi, 2019).

    Denominators are at least 1e-6, so boxes without area overlap by 0. Differentiable in both.

    Args:
        boxes: (N, 4) floating point, xyxy.
        others: (M, 4), or (N, 4) where aligned; of the same dtype.
        mode: "iou", "iof" or "giou".
        aligned: pair by pair instead of all with all.
        offset: 0, or 1 to add one pixel to every width and height.

    Returns:
        (N, M), or (N,) where aligned; float32, or float64 for such boxes.

    Raises:
        ValueError: for shapes, a mode or an offset other than these.
        TypeError: for boxes that are not floating point, or of two dtypes.
    """
    _check_boxes(boxes)
    _check_boxes(others, "others")
    if boxes.dtype != others.dtype:
        raise TypeError(f"boxes have dtype {boxes.dtype} and others {others.dtype}, expected the same")
    if mode not in ("iou", "iof", "giou"):
        raise ValueError(f"mode is {mode!r}, expected 'iou', 'iof' or 'giou'")
    if offset not in (0, 1):
        raise ValueError(f"offset is {offset}, expected 0 or 1")
    if aligned and boxes.shape != others.shape:
        raise ValueError(f"aligned needs as many others as boxes, found {others.shape[0]} and {boxes.shape[0]}")
    if torch.is_grad_enabled() and (boxes.requires_grad or others.requires_grad):
        # Plain torch has its gradient already, and fuses it when compiled.
        return reference.box_overlaps(boxes, others, mode, aligned, offset)
    overlaps: Tensor = torch.ops.det.box_overlaps(boxes, others, mode, aligned, offset)
    return overlaps


def max_iou_assign(
    boxes: Tensor,
    objects: Tensor,
    positive: float,
    negative: float,
    min_positive: float = 0.0,
    low_quality: bool = True,
    all_ties: bool = True,
) -> tuple[Tensor, Tensor]:
    """Which object each box stands for (Ren et al., Faster R-CNN, 2015, section 3.1.2), without an N x M matrix.

    In order: best IoU below `negative` is background; at least `positive` takes the best object (the first of equals);
    the rest is ignored. Then, with `low_quality`, each object in turn whose best IoU is at least `min_positive` takes
    every box that ties this IoU (only the first one without `all_ties`); a later object overrides an earlier one.
    A 0/0 or NaN overlap counts as 0.

    Args:
        boxes: (N, 4) floating point, xyxy.
        objects: (M, 4) of the same dtype, possibly none.
        positive: IoU from which a box is positive.
        negative: IoU below which a box is background.
        min_positive: least IoU of an object's best box.
        low_quality: whether an object takes its best boxes whatever their IoU.
        all_ties: whether it takes all that tie.

    Returns:
        (N,) int64: object index + 1, 0 background, -1 ignored; and (N,) the best IoU, float32 or float64.

    Raises:
        ValueError: for shapes other than these.
        TypeError: for boxes that are not floating point, or of two dtypes.
    """
    _check_boxes(boxes)
    _check_boxes(objects, "objects")
    if boxes.dtype != objects.dtype:
        raise TypeError(f"boxes have dtype {boxes.dtype} and objects {objects.dtype}, expected the same")
    assigned, best = torch.ops.det.max_iou_assign(
        boxes.detach(), objects.detach(), positive, negative, min_positive, low_quality, all_ties
    )
    return assigned, best
