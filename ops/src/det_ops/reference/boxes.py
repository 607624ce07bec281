"""Suppression, overlaps and assignment of boxes. Letters: N boxes, M objects, n kept. Boxes are xyxy."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from det_ops.reference.precision import full

EPS = 1e-6  # the minimum of the denominator of an overlap
CHUNK = 1 << 22  # the maximum number of overlaps in memory, in the assignment


def nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> Tensor:
    """(n,) int64 kept indices, best first; see `det_ops.nms`."""
    boxes = full(boxes)
    limit = torch.tensor(threshold, dtype=boxes.dtype, device=boxes.device)
    order = torch.sort(scores, descending=True, stable=True).indices
    x1, y1, x2, y2 = boxes[order].unbind(1)
    area = (x2 - x1 + offset) * (y2 - y1 + offset)
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    for i in range(len(order)):
        if not alive[i]:
            continue
        rest = slice(i + 1, None)
        width = (torch.minimum(x2[i], x2[rest]) - torch.maximum(x1[i], x1[rest]) + offset).clamp(min=0)
        height = (torch.minimum(y2[i], y2[rest]) - torch.maximum(y1[i], y1[rest]) + offset).clamp(min=0)
        inter = width * height
        # NaN (0/0) compares false, so it suppresses nothing.
        alive[rest] &= ~(inter / (area[i] + area[rest] - inter) > limit)
    return order[alive]


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """(n,) int64 kept indices of all groups, best first; see `det_ops.batched_nms`."""
    kept = [torch.zeros(0, dtype=torch.int64, device=boxes.device)]
    for group in torch.unique(groups):
        member = (groups == group).nonzero().flatten()
        kept.append(member[nms(boxes[member], scores[member], threshold, 0)])
    return by_score(torch.cat(kept), scores)


def by_score(kept: Tensor, scores: Tensor) -> Tensor:
    """Kept indices (n,) in stable descending order of their scores; scores (N,) of all boxes."""
    kept = kept.sort().values  # ascending, so that the stable sort breaks ties by lower index
    return kept[torch.sort(scores[kept], descending=True, stable=True).indices]


def nms_padded(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, max_out: int) -> tuple[Tensor, Tensor]:
    """(max_out,) int64 kept indices and how many there are: (); see `det_ops.nms_padded`."""
    return padded(batched_nms(boxes, scores, groups, threshold), max_out)


def padded(kept: Tensor, max_out: int) -> tuple[Tensor, Tensor]:
    """The first max_out of the kept indices (n,), padded with -1: (max_out,) int64, and how many there are: ()."""
    kept = kept[:max_out]
    result = kept.new_full((max_out,), -1)
    result[: len(kept)] = kept
    return result, torch.tensor(len(kept), device=kept.device)


def soft_nms(
    boxes: Tensor, scores: Tensor, threshold: float, sigma: float, min_score: float, method: str
) -> tuple[Tensor, Tensor]:
    """(n,) int64 indices in the order picked and (n,) decayed scores; see `det_ops.soft_nms`."""
    real = torch.promote_types(full(boxes).dtype, full(scores).dtype)
    boxes, left = boxes.to(real), scores.to(real, copy=True)
    limit = torch.tensor(threshold, dtype=boxes.dtype, device=boxes.device)
    low = torch.tensor(min_score, dtype=left.dtype, device=boxes.device)
    alive = left >= low
    picked: list[int] = []
    while bool(alive.any()):
        best = int((alive & (left == left[alive].max())).nonzero()[0])  # the first of equals
        picked.append(best)
        alive[best] = False
        iou = box_overlaps(boxes[best : best + 1], boxes, "iou", False, 0)[0]
        if method == "gaussian":
            decay = torch.exp(-(iou * iou) / sigma)
        else:
            kept = torch.zeros_like(iou) if method == "naive" else 1 - iou
            decay = torch.where(iou >= limit, kept, torch.ones_like(iou))
        left = torch.where(alive, left * decay, left)
        alive &= left >= low
    kept_indices = torch.tensor(picked, dtype=torch.int64, device=boxes.device)
    return kept_indices, left[kept_indices].to(scores.dtype)


def box_overlaps(boxes: Tensor, others: Tensor, mode: str, aligned: bool, offset: int) -> Tensor:
    """(N, M), or (N,) if aligned; see `det_ops.box_overlaps`."""
    boxes, others = full(boxes), full(others)
    area, other_area = _area(boxes, offset), _area(others, offset)
    if not aligned:
        boxes, others = boxes[:, None], others[None]
        area, other_area = area[:, None], other_area[None]
    inter = _product(
        torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2]), offset
    )
    union = area + other_area - inter if mode != "iof" else area.expand_as(inter)
    iou = inter / _floored(union)
    if mode != "giou":
        return iou
    hull = _product(
        torch.maximum(boxes[..., 2:], others[..., 2:]) - torch.minimum(boxes[..., :2], others[..., :2]), offset
    )
    hull = _floored(hull)
    return iou - (hull - union) / hull


def _area(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0] + offset) * (boxes[..., 3] - boxes[..., 1] + offset)


def _product(sides: Tensor, offset: int) -> Tensor:
    """Width times height of sides (..., 2), each at least 0."""
    sides = (sides + offset).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def _floored(denominator: Tensor) -> Tensor:
    return denominator.clamp(min=EPS)


def max_iou_assign(
    boxes: Tensor,
    objects: Tensor,
    positive: float,
    negative: float,
    min_positive: float,
    low_quality: bool,
    all_ties: bool,
) -> tuple[Tensor, Tensor]:
    """(N,) int64 assignment and (N,) best overlap, in chunks of boxes; see `det_ops.max_iou_assign`."""
    assigned = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    overlap = torch.zeros(len(boxes), dtype=full(boxes).dtype, device=boxes.device)
    if len(boxes) == 0 or len(objects) == 0:
        return assigned, overlap
    best_of_object = overlap.new_full((len(objects),), -1.0)
    first_of_object = assigned.new_zeros(len(objects))
    chunks = list(_overlap_chunks(boxes, objects)) if len(boxes) * len(objects) <= CHUNK else None
    for rows, iou in chunks or _overlap_chunks(boxes, objects):
        best, index = iou.max(1)
        part = torch.full_like(index, -1)
        part[best < negative] = 0
        assigned[rows], overlap[rows] = torch.where(best >= positive, index + 1, part), best
        column_best, row = iou.max(0)
        first_of_object = torch.where(column_best > best_of_object, row + rows.start, first_of_object)
        best_of_object = torch.maximum(best_of_object, column_best)
    if low_quality and not all_ties:
        for number in (best_of_object >= min_positive).nonzero().flatten().tolist():
            assigned[first_of_object[number]] = number + 1
    elif low_quality:
        numbers = torch.arange(1, len(objects) + 1, device=boxes.device)
        for rows, iou in chunks or _overlap_chunks(boxes, objects):
            ties = (iou == best_of_object) & (best_of_object >= min_positive)
            last = torch.where(ties, numbers, numbers.new_tensor(0)).max(1).values  # a later object overrides
            assigned[rows] = torch.where(last > 0, last, assigned[rows])
    return assigned, overlap


def _overlap_chunks(boxes: Tensor, objects: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of the boxes with their (c, M) IoU, so that the N x M matrix is never stored; NaN counts as 0."""
    step = max(1, CHUNK // max(1, len(objects)))
    for start in range(0, len(boxes), step):
        rows = slice(start, min(start + step, len(boxes)))
        yield rows, box_overlaps(boxes[rows], objects, "iou", False, 0).nan_to_num(0.0)
