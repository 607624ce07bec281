"""Greedy non-maximum suppression: of all boxes, within groups, and with a result of fixed size.

Letters: B images, N boxes, n kept. Boxes are xyxy. Coordinates are computed in float32, or float64 if given.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from det_ops import checks
from det_ops.reference import boxes as reference
from det_ops.reference.precision import full
from det_ops.registration import operator, unknown_length


def _check_groups(groups: Tensor, scores: Tensor) -> None:
    checks.check_shape(groups, "groups have", scores.shape, " to match scores")
    if groups.is_floating_point() or groups.is_complex():
        raise TypeError(f"groups have dtype {groups.dtype}, expected an integer dtype; convert them with .long()")


def nms(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    offset: int = 0,
    score_threshold: float = 0.0,
    max_num: int | None = None,
) -> Tensor:
    """Greedy non-maximum suppression.

    Boxes are visited in stable descending order of score (NaN first). A box is suppressed if its IoU with a kept box
    is strictly greater than `threshold`. The threshold is first rounded to the precision of the computation, so that
    an IoU equal to it never suppresses. An IoU of 0/0 suppresses nothing.

    Args:
        boxes: (N, 4) floating point, xyxy.
        scores: (N,) floating point.
        threshold: IoU above which the box with the lower score is suppressed.
        offset: 0, or 1 to add one pixel to every width and height, the inclusive-pixel convention of 2019.
        score_threshold: Boxes are ignored unless their score is greater; 0 ignores none.
        max_num: The maximum number of boxes to return; None for all.

    Returns:
        (n,) int64 indices of the kept boxes, best first.

    Raises:
        ValueError: for shapes other than these, an offset other than 0 and 1, or a negative max_num.
        TypeError: for boxes or scores that are not floating point.
    """
    checks.check_scored_boxes(boxes, scores)
    checks.check_pixel_offset(offset)
    if max_num is not None:
        checks.check_at_least(max_num, "max_num", 0, ", or None for all")
    if score_threshold > 0:
        candidates = (scores > score_threshold).nonzero().flatten()
        kept = candidates[_nms(boxes[candidates], scores[candidates], threshold, offset)]
    else:
        kept = _nms(boxes, scores, threshold, offset)
    return kept if max_num is None else kept[:max_num]


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Exact non-maximum suppression within each group (class, level, image).

    Coordinates are not shifted, so groups never interact and nothing is rounded.

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
    checks.check_scored_boxes(boxes, scores)
    _check_groups(groups, scores)
    return _batched_nms(boxes, scores, groups.long(), threshold)


def nms_padded(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, max_out: int) -> tuple[Tensor, Tensor]:
    """`batched_nms` with a result of fixed size, for compiled and captured code that must not wait for the data.

    Args:
        boxes: (N, 4) floating point, xyxy.
        scores: (N,) floating point.
        groups: (N,) integer.
        threshold: as in `nms`.
        max_out: The number of indices to return.

    Returns:
        (max_out,) int64 indices, best first, padded with -1; and the number of kept boxes among them, an int64 scalar
        tensor.

    Raises:
        ValueError: for shapes other than these, or a negative max_out.
        TypeError: for boxes or scores that are not floating point, or groups that are not integers.
    """
    checks.check_scored_boxes(boxes, scores)
    _check_groups(groups, scores)
    checks.check_at_least(max_out, "max_out", 0)
    return _nms_padded(boxes, scores, groups.long(), threshold, max_out)


def nms_images(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, max_out: int) -> tuple[Tensor, Tensor]:
    """`nms_padded` of each image of a batch, in one operator whose batch size may be symbolic in an exported graph.

    Args:
        boxes: (B, N, 4) floating point, xyxy.
        scores: (B, N) floating point.
        groups: (B, N) integer.
        threshold: as in `nms`.
        max_out: The number of indices to return for each image.

    Returns:
        (B, max_out) int64 indices into the boxes of each image, best first, padded with -1; and (B,) int64, the number
        of kept boxes among them.

    Raises:
        ValueError: for shapes other than these, or a negative max_out.
        TypeError: for boxes or scores that are not floating point, or groups that are not integers.
    """
    if boxes.dim() != 3 or boxes.shape[2] != 4:
        raise ValueError(f"boxes have shape {tuple(boxes.shape)}, expected (B, N, 4)")
    checks.check_shape(scores, "scores have", boxes.shape[:2], " to match boxes")
    checks.check_floating(boxes, "boxes have")
    checks.check_floating(scores, "scores have")
    _check_groups(groups, scores)
    checks.check_at_least(max_out, "max_out", 0)
    return _nms_images(boxes, scores, groups.long(), threshold, max_out)


def _each_image(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, max_out: int) -> tuple[Tensor, Tensor]:
    """The definition of `nms_images`. It calls the operator of one image, which has native kernels."""
    found = [_nms_padded(*image, threshold, max_out) for image in zip(boxes, scores, groups, strict=True)]
    kept, counts = [x for x, _ in found], [x for _, x in found]
    if not found:
        return groups.new_zeros((0, max_out)), groups.new_zeros(0)
    return torch.stack(kept), torch.stack(counts)


def _torchvision_nms(peer: Any, boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> Tensor | None:
    return _ranked_nms(peer, boxes, scores, threshold) if offset == 0 and len(boxes) else None


def _ranked_nms(peer: Any, boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    boxes = full(boxes)
    # torchvision compares with the double; here the threshold has the precision of the computation.
    limit = float(torch.tensor(threshold, dtype=torch.float32)) if boxes.dtype == torch.float32 else threshold
    # torchvision may sort NaN and equal scores differently, so it receives ranks.
    order = torch.sort(scores, descending=True, stable=True).indices
    rank = torch.empty_like(boxes[:, 0])
    rank[order] = torch.arange(len(order), 0, -1, dtype=rank.dtype, device=rank.device)
    kept: Tensor = peer.nms(boxes, rank, limit)
    return kept


def _torchvision_batched_nms(
    peer: Any, boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float
) -> Tensor | None:
    if len(boxes) == 0:
        return None
    # One stable sort by group makes each group a slice, with its members in their original order.
    order = torch.sort(groups, stable=True).indices
    sizes = torch.unique_consecutive(groups[order], return_counts=True)[1].tolist()
    kept = torch.cat([part[_ranked_nms(peer, boxes[part], scores[part], threshold)] for part in order.split(sizes)])
    return reference.by_score(kept, scores)


def _torchvision_nms_padded(
    peer: Any, boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, max_out: int
) -> tuple[Tensor, Tensor] | None:
    kept = _torchvision_batched_nms(peer, boxes, scores, groups, threshold)
    return None if kept is None else reference.padded(kept, max_out)


def _fake(boxes: Tensor, *_: object) -> Tensor:
    return boxes.new_empty(unknown_length(), dtype=torch.int64)


def _fake_padded(boxes: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return boxes.new_empty(others[-1], dtype=torch.int64), boxes.new_empty((), dtype=torch.int64)


def _fake_images(boxes: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    images = boxes.shape[0]
    return boxes.new_empty((images, others[-1]), dtype=torch.int64), boxes.new_empty(images, dtype=torch.int64)


_nms = operator("nms", reference.nms, fake=_fake, torchvision=_torchvision_nms)
_batched_nms = operator("batched_nms", reference.batched_nms, fake=_fake, torchvision=_torchvision_batched_nms)
_nms_padded = operator("nms_padded", reference.nms_padded, fake=_fake_padded, torchvision=_torchvision_nms_padded)
_nms_images = operator("nms_images", _each_image, fake=_fake_images)
