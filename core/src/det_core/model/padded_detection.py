"""Detection in tensors of fixed size: what `dense_detection` and `postprocess` do, for export.

Top-k results are padded to their limit and NMS returns a fixed number of boxes, so that no shape depends on what is in
the images. The detections are those of the functions that they mirror.

Letters: N images, L levels, K columns (classes), t anchors of one level, T anchors of all levels, n candidates, k limit
of one level, D detections of an image. Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from attrs import evolve, frozen
from torch import Tensor

import det_ops
from det_core.boxes.coders import clip_images
from det_core.contracts import BoxCoder
from det_core.model.dense_detection import DenseOutputs
from det_core.model.detection_config import DetectionSettings
from det_core.padded import NotExportableError, PaddedBatch, PaddedDetections
from det_core.structures import full_precision


@frozen(eq=False)
class PaddedCandidates:
    """boxes (N, n, 4), scores (N, n), labels (N, n) int64 (columns), levels (N, n) int64; valid (N, n) bool."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    levels: Tensor
    valid: Tensor

    def only(self, keep: Tensor) -> PaddedCandidates:
        """Those that `keep` (N, n) bool does not select become padding."""
        return evolve(self, valid=self.valid & keep)

    def larger_than(self, side: float) -> Tensor:
        """(N, n) bool: whether width and height are above `side` pixels of the network's input."""
        return ((self.boxes[..., 2:] - self.boxes[..., :2]) > side).all(-1)


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


def rows_of_images(values: Tensor, rows: Tensor) -> Tensor:
    """(N, m, ...): of each image's values (N, n, ...), the rows (N, m) int64."""
    shape = values.shape[2:]
    return values.gather(1, rows.reshape(*rows.shape, *[1] * len(shape)).expand(-1, -1, *shape))


def top_padded(values: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """The `limit` largest values of each row (N, n), best first, padded with -inf; and their indices, 0 for padding."""
    padding = values.new_full((limit,), -math.inf).expand(values.shape[0], -1)
    best, at = torch.cat([values, padding], 1).topk(limit)
    return best, torch.where(best > -math.inf, at, 0)


def anchors_at(boxes: Tensor, rows: Tensor) -> Tensor:
    """(N, m, 4): the anchors in the rows (N, m) of each image; boxes: (t, 4) of all images, or (N, t, 4) of each."""
    return boxes[rows] if boxes.dim() == 2 else rows_of_images(boxes, rows)


def best_candidates_padded(
    outputs: DenseOutputs,
    batch: PaddedBatch,
    coder: BoxCoder,
    *,
    limit: int,
    above: Sequence[float] | None = None,
    clipped: bool = True,
) -> PaddedCandidates:
    """As `best_candidates`, of all images: `limit` pairs of each level, padded; by level, best first.

    Args:
        outputs, coder, clipped: as in `best_candidates`; anchors may be (t, 4) of all images or (N, t, 4) of each.
        batch: of the images.
        limit: pairs per level.
        above: score threshold of each level; None keeps all.
    """
    boxes, deltas, scores, labels, levels = [], [], [], [], []
    for number, (values, moves, level) in enumerate(zip(outputs.scores, outputs.deltas, outputs.anchors, strict=True)):
        best, at, column = _best_pairs(full_precision(values), limit)
        if above is not None:
            best = torch.where(best > above[number], best, -math.inf)
        boxes.append(anchors_at(level.boxes, at))
        deltas.append(rows_of_images(moves, at))
        scores.append(best)
        labels.append(column)
        levels.append(torch.full_like(at, number))
    return decoded(
        coder,
        torch.cat(boxes, 1),
        torch.cat(deltas, 1),
        batch if clipped else None,
        (torch.cat(scores, 1), torch.cat(labels, 1), torch.cat(levels, 1)),
    )


def decoded(
    coder: BoxCoder,
    anchors: Tensor,
    deltas: Tensor,
    batch: PaddedBatch | None,
    scored: tuple[Tensor, Tensor, Tensor],
) -> PaddedCandidates:
    """Candidates from anchors and deltas (N, n, 4); those whose score is -inf are padding.

    batch: of the images, to clip to; None: not clipped. scored: scores, labels and levels (N, n).
    """
    boxes = coder.decode(anchors.flatten(0, 1), deltas.flatten(0, 1)).reshape(anchors.shape)
    if batch is not None:
        boxes = coder.clip_images(boxes, batch.sizes)
    return PaddedCandidates(boxes, *scored, valid=scored[0] > -math.inf)


def _best_pairs(values: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each image's values (N, t, K): the `limit` largest (N, k), their rows and their columns (N, k) int64.

    The rows of the best pairs are among the best rows, which are fewer to sort.
    """
    columns = values.shape[2]
    if columns == 1:
        best, at = top_padded(values[..., 0], limit)
        return best, at, torch.zeros_like(at)
    top, rows = top_padded(values.amax(2), limit)
    among = torch.where((top > -math.inf)[..., None], rows_of_images(values, rows), -math.inf)
    best, at = among.flatten(1).topk(limit)
    return best, rows.gather(1, torch.div(at, columns, rounding_mode="floor")), at % columns


@frozen(eq=False)
class PaddedAnchors:
    """boxes (N, n, 4); scores (N, n, K) probabilities, -inf where they are padding or too low; levels (N, n) int64."""

    boxes: Tensor
    scores: Tensor
    levels: Tensor

    def larger_than(self, side: float) -> Tensor:
        """(N, n) bool: whether width and height are above `side` pixels of the network's input."""
        return ((self.boxes[..., 2:] - self.boxes[..., :2]) > side).all(-1)


def best_anchors_padded(
    outputs: DenseOutputs, batch: PaddedBatch, coder: BoxCoder, *, limit: int | None, clipped: bool = True
) -> PaddedAnchors:
    """As `best_anchors`, of all images, decoded: the `limit` anchors of each level with the highest scores, padded,
    with all their scores; None: all anchors. Those whose scores are all -inf are padding. Anchors may be (t, 4) of all
    images or (N, t, 4) of each.
    """
    anchors, deltas, scores, levels = [], [], [], []
    for number, (values, moves, level) in enumerate(zip(outputs.scores, outputs.deltas, outputs.anchors, strict=True)):
        found = full_precision(values)
        if limit is None:
            at = torch.arange(found.shape[1], device=found.device).expand(found.shape[0], -1)
        else:
            top, at = top_padded(found.amax(2), limit)
            found = torch.where((top > -math.inf)[..., None], rows_of_images(found, at), -math.inf)
        scores.append(found)
        anchors.append(anchors_at(level.boxes, at))
        deltas.append(rows_of_images(moves, at))
        levels.append(torch.full_like(at, number))
    boxes = coder.decode(torch.cat(anchors, 1).flatten(0, 1), torch.cat(deltas, 1).flatten(0, 1))
    boxes = boxes.unflatten(0, (-1, sum(x.shape[1] for x in anchors)))
    boxes = coder.clip_images(boxes, batch.sizes) if clipped else boxes
    return PaddedAnchors(boxes, torch.cat(scores, 1), torch.cat(levels, 1))


def best_per_class_padded(
    outputs: DenseOutputs, batch: PaddedBatch, coder: BoxCoder, *, limit: int, above: float
) -> PaddedCandidates:
    """As `best_per_class`, of all images: `limit` anchors of each column over all levels, padded; by column."""
    values = full_precision(torch.cat(outputs.scores, 1)).transpose(1, 2)  # (N, K, T)
    columns = values.shape[1]
    best, at = top_padded(values.flatten(0, 1), limit)
    best, at = (x.unflatten(0, (-1, columns)).flatten(1) for x in (best, at))
    best = torch.where(best > above, best, -math.inf)
    anchors = torch.cat([level.boxes for level in outputs.anchors])
    label = torch.arange(columns, device=at.device).repeat_interleave(limit).expand_as(at)
    deltas = rows_of_images(torch.cat(outputs.deltas, 1), at)
    return decoded(coder, anchors[at], deltas, batch, (best, label, torch.zeros_like(at)))


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
    """As `pairs_nms`, of all images: boxes (N, n, 4), scores, labels and valid (N, n). Applies no score threshold."""
    check_nms(config)
    groups = torch.zeros_like(labels) if config.class_agnostic_nms else labels
    rows, kept = nms_images(boxes, scores, groups, valid, config.nms_threshold, config.max_detections)
    return PaddedChoice(rows, labels.gather(1, rows), scores.gather(1, rows), kept)


def choose_classes(boxes: Tensor, scores: Tensor, config: DetectionSettings) -> PaddedChoice:
    """As `class_wise_nms`, of all images: boxes (N, R, K, 4), or (N, R, 4) that all classes share, and scores
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
    best: PaddedCandidates | PaddedAnchors,
    batch: PaddedBatch,
    config: DetectionSettings,
    clip_to: Callable[[Tensor], Tensor] | None = None,
) -> PaddedDetections:
    """As `suppress`, of all images: of (anchor, class) pairs, or of anchors with all their classes."""
    network = config.nms_in == "network"
    placed = best.boxes if network else to_original_images(best.boxes, batch)
    if clip_to is not None:
        placed = clip_to(placed)
    if isinstance(best, PaddedAnchors):
        chosen = choose_classes(placed, best.scores, config)
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
