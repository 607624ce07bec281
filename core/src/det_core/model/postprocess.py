"""Post-processing: score threshold, NMS and conversion to pixels of the original image.

Letters: R regions or anchors, K foreground classes, n detections. Boxes are xyxy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

import det_ops
from det_core.boxes.coders import clip
from det_core.contracts import BoxCoder
from det_core.model.detection_config import DetectionSettings, SoftNMSConfig
from det_core.structures import ImageInfo


def to_original(boxes: Tensor, info: ImageInfo) -> Tensor:
    """Convert boxes (..., 4) from network pixels to pixels of the original image."""
    factors, last = _factors(boxes, info)
    return (boxes - last) / factors + last if info.inclusive else boxes / factors


def to_network(boxes: Tensor, info: ImageInfo) -> Tensor:
    """Convert boxes (..., 4) from pixels of the original image to network pixels."""
    factors, last = _factors(boxes, info)
    return (boxes - last) * factors + last if info.inclusive else boxes * factors


def _factors(boxes: Tensor, info: ImageInfo) -> tuple[Tensor, Tensor | float]:
    """(4,) factors of the coordinates, and (4,) what an inclusive box ends after its last pixel."""
    y, x = info.scale
    return boxes.new_tensor([x, y, x, y]), boxes.new_tensor([0.0, 0.0, 1.0, 1.0]) if info.inclusive else 0.0


def decode_images(
    coder: BoxCoder, anchors: Sequence[Tensor], deltas: Tensor, sizes: Sequence[tuple[int, int]]
) -> list[Tensor]:
    """The boxes (r, ..., 4) of each image's anchors (r, 4), decoded at once and clipped to the image's size (h, w).

    deltas: (R, ..., 4), of all images' anchors in order.
    """
    if len(anchors) == 1:
        return [coder.decode(anchors[0], deltas, sizes[0])]
    parts = coder.decode(torch.cat(list(anchors)), deltas).split([len(a) for a in anchors])
    return [coder.clip(boxes, size) for boxes, size in zip(parts, sizes, strict=True)]


def inside_original(boxes: Tensor, info: ImageInfo) -> tuple[Tensor, Tensor]:
    """Boxes (n, 4) in original pixels clipped to the original image, and which (n,) bool have an area."""
    clipped = clip(boxes, info.original_size)
    return clipped, (clipped[:, 2:] > clipped[:, :2]).all(1)


@frozen(eq=False)
class Chosen:
    """The boxes kept by NMS: boxes (n, 4), scores (n,), labels (n,) int64, rows (n,) int64 of the input, best first."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    rows: Tensor


def class_wise_nms(boxes: Tensor, scores: Tensor, config: DetectionSettings) -> Chosen:
    """Apply the score threshold to all (region, class) pairs, then NMS per class; keep the best.

    Args:
        boxes: (R, K, 4), or (R, 4) if all classes share one box.
        scores: (R, K) probabilities.
        config: thresholds and limits. With soft-NMS, the returned scores are the lowered ones.
    """
    rows, labels = (scores > config.score_threshold).nonzero(as_tuple=True)
    pair_boxes = boxes[rows, labels] if boxes.dim() == 3 else boxes[rows]
    kept = pairs_nms(pair_boxes, scores[rows, labels], labels, config)
    return Chosen(kept.boxes, kept.scores, kept.labels, rows[kept.rows])


def pairs_nms(boxes: Tensor, scores: Tensor, labels: Tensor, config: DetectionSettings) -> Chosen:
    """NMS per class of boxes (n, 4) with scores (n,) and labels (n,); keep the best. Applies no score threshold."""
    groups = torch.zeros_like(labels) if config.class_agnostic_nms else labels
    if config.soft_nms is None:
        keep = det_ops.batched_nms(boxes, scores, groups, config.nms_threshold)[: config.max_detections]
        kept_scores = scores[keep]
    else:
        keep, kept_scores = _soft_nms(boxes, scores, groups, config.nms_threshold, config.soft_nms)
        keep, kept_scores = keep[: config.max_detections], kept_scores[: config.max_detections]
    return Chosen(boxes[keep], kept_scores, labels[keep], keep)


def _soft_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, soft: SoftNMSConfig
) -> tuple[Tensor, Tensor]:
    """(n,) indices and (n,) lowered scores of boxes (N, 4) with scores (N,), per group (N,), best first."""
    kept, decayed = [groups[:0]], [scores[:0]]
    for group in groups.unique():
        member = (groups == group).nonzero().flatten()
        found, left = det_ops.soft_nms(
            boxes[member], scores[member], threshold, soft.sigma, soft.min_score, soft.method
        )
        kept.append(member[found])
        decayed.append(left)
    all_kept, all_scores = torch.cat(kept), torch.cat(decayed)
    order = all_scores.argsort(descending=True, stable=True)
    return all_kept[order], all_scores[order]
