"""Post-processing in tensors of fixed size: what `postprocess` does, for export.

NMS returns a fixed number of boxes, so that no shape depends on what is in the images. The detections are those of the
functions that they mirror.

Letters: N images, R regions of an image, K classes, n candidates, D detections of an image. Boxes are xyxy in pixels of
the padded network input.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from attrs import evolve, frozen
from torch import Tensor

import det_ops
from det_core.boxes.coders import clip_images
from det_core.model.candidates import AnchorCandidates, Candidates, rows_of_images
from det_core.model.detection_config import DetectionSettings
from det_core.padded import NotExportableError, PaddedBatch, PaddedDetections


def to_original_images(boxes: Tensor, batch: PaddedBatch) -> Tensor:
    """Boxes (N, ..., 4) from network pixels to pixels of the original images."""
    factors, last = _factors(boxes, batch)
    return (boxes - last) / factors + last if batch.inclusive else boxes / factors


def to_network_images(boxes: Tensor, batch: PaddedBatch) -> Tensor:
    """Boxes (N, ..., 4) from pixels of the original images to network pixels."""
    factors, last = _factors(boxes, batch)
    return (boxes - last) * factors + last if batch.inclusive else boxes * factors


def _factors(boxes: Tensor, batch: PaddedBatch) -> tuple[Tensor, Tensor]:
    """(N, ..., 4) factors of the coordinates, and (4,) what an inclusive box ends after its last pixel."""
    scales = batch.scales.to(boxes.dtype).flip(1).repeat(1, 2)
    return scales.reshape(-1, *[1] * (boxes.dim() - 2), 4), boxes.new_tensor([0.0, 0.0, 1.0, 1.0])


def nms_images(
    boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    """NMS within groups of each image's boxes (N, n, 4): the rows (N, limit) that it keeps, best first, and which of
    these are valid (N, limit).

    Padding has a group of its own, in which one box suppresses all others.
    """
    one = boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
    kept, _ = det_ops.nms_images(
        torch.where(valid[..., None], boxes, one),
        torch.where(valid, scores, -math.inf),
        torch.where(valid, groups, -1),
        threshold,
        limit,
    )
    rows = kept.clamp(min=0)
    return rows, (kept >= 0) & valid.gather(1, rows)


@frozen(eq=False)
class PaddedChoice:
    """What NMS keeps of each image, best first: rows, labels, scores and valid (N, D); valid is false for padding."""

    rows: Tensor
    labels: Tensor
    scores: Tensor
    valid: Tensor


def choose_pairs(
    boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor, config: DetectionSettings
) -> PaddedChoice:
    """NMS of boxes (N, n, 4) with scores, labels and valid (N, n), as `choose`; applies no score threshold."""
    check_nms(config)
    groups = torch.zeros_like(labels) if config.class_agnostic_nms else labels
    rows, kept = nms_images(boxes, scores, groups, valid, config.nms_threshold, config.max_detections)
    return PaddedChoice(rows, labels.gather(1, rows), scores.gather(1, rows), kept)


def choose_classes(boxes: Tensor, scores: Tensor, config: DetectionSettings) -> PaddedChoice:
    """The same of regions with all their classes: boxes (N, R, K, 4), or (N, R, 4) that all classes share, and scores
    (N, R, K).

    Scores of padding, and those that are too low, are -inf. A class is suppressed as if it were an image, since no box
    of another touches it: of each the best D boxes suffice.
    """
    check_nms(config)
    columns = scores.shape[2]
    boxes = boxes if boxes.dim() == 4 else boxes[:, :, None].expand(-1, -1, columns, -1)
    if config.class_agnostic_nms:
        flat = scores.flatten(1)
        zeros = torch.zeros_like(flat, dtype=torch.int64)
        chosen = choose_pairs(boxes.flatten(1, 2), flat, zeros, flat > -math.inf, config)
        rows, labels = torch.div(chosen.rows, columns, rounding_mode="floor"), chosen.rows % columns
        return evolve(chosen, rows=rows, labels=labels)
    by_class, of_class = boxes.transpose(1, 2).flatten(0, 1), scores.transpose(1, 2).flatten(0, 1)
    zeros = torch.zeros_like(of_class, dtype=torch.int64)
    limit = config.max_detections
    rows, valid = nms_images(by_class, of_class, zeros, of_class > -math.inf, config.nms_threshold, limit)
    kept = torch.where(valid, of_class.gather(1, rows), -math.inf).unflatten(0, (-1, columns)).flatten(1)
    best, at = kept.topk(limit)
    rows = rows.unflatten(0, (-1, columns)).flatten(1).gather(1, at)
    return PaddedChoice(rows, torch.div(at, limit, rounding_mode="floor"), best, best > -math.inf)


def check_nms(config: DetectionSettings) -> None:
    """NotExportableError for soft-NMS."""
    if config.soft_nms is not None:
        raise NotExportableError(
            "soft_nms: soft-NMS has no form of fixed size that ONNX can express, so this detector cannot be exported; "
            "set soft_nms: null, which gives other detections"
        )


def suppress_padded(
    best: Candidates | AnchorCandidates,
    batch: PaddedBatch,
    config: DetectionSettings,
    clip_to: Callable[[Tensor], Tensor] | None = None,
) -> PaddedDetections:
    """As `suppress`, of all images: of (anchor, class) pairs, or of anchors with all their classes."""
    network = config.nms_in == "network"
    placed = best.boxes if network else to_original_images(best.boxes, batch)
    if clip_to is not None:
        placed = clip_to(placed)
    if isinstance(best, AnchorCandidates):
        chosen = choose_classes(placed, torch.where(best.valid, best.scores, -math.inf), config)
    else:
        chosen = choose_pairs(placed, best.scores, best.labels, best.valid, config)
    boxes = rows_of_images(placed, chosen.rows)
    if network:
        boxes = to_original_images(boxes, batch)
    if config.clip_original:
        boxes, chosen = inside_images(boxes, chosen, batch)
    return padded_detections(boxes, chosen)


def inside_images(boxes: Tensor, chosen: PaddedChoice, batch: PaddedBatch) -> tuple[Tensor, PaddedChoice]:
    """Boxes (N, D, 4) clipped to the original images; those without area become padding, which comes last."""
    clipped = clip_images(boxes, batch.original_sizes)
    real = chosen.valid & (clipped[..., 2:] > clipped[..., :2]).all(-1)
    count = boxes.shape[1]
    places = torch.arange(count, device=boxes.device)
    order = torch.where(real, places, places + count).topk(count, largest=False).indices
    fields = (x.gather(1, order) for x in (chosen.rows, chosen.labels, chosen.scores, real))
    return rows_of_images(clipped, order), PaddedChoice(*fields)


def padded_detections(boxes: Tensor, chosen: PaddedChoice) -> PaddedDetections:
    """Detections with boxes (N, D, 4) in original pixels; padding has box and score 0 and label -1."""
    valid = chosen.valid
    return PaddedDetections(
        boxes=torch.where(valid[..., None], boxes, 0.0),
        scores=torch.where(valid, chosen.scores, 0.0),
        labels=torch.where(valid, chosen.labels, -1),
        counts=valid.sum(1),
    )
