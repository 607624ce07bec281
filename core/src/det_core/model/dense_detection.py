"""Functions that dense heads share: outputs with one row per anchor, targets, pre-selection, decoding.

Letters: N images, L levels, A anchors per cell, C columns (classes), h w feature size, t anchors of one level,
T anchors of all levels, u usable anchors, M objects, n candidates or detections of one image. Boxes are xyxy in pixels
of the padded network input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from det_core.boxes.device_copies import rows_of, send_indices
from det_core.boxes.samplers import all_of_images, to_device
from det_core.contracts import (
    BACKGROUND,
    IGNORED,
    AnchorGenerator,
    Assigner,
    Assignment,
    BoxCoder,
    LevelAnchors,
    Loss,
    Losses,
    Sampled,
)
from det_core.model.detection_config import DetectionSettings
from det_core.model.losses import box_loss as regression
from det_core.model.postprocess import inside_original, pairs_nms, to_original
from det_core.structures import Batch, Detections, ImageInfo, LossTerm, Targets, full_precision

FEW = 1 << 20  # maximum elements of masks that are copied to the host
IGNORED_LABEL = -1  # label of anchors that are neither object nor background; the focal loss ignores it


@frozen(eq=False)
class DenseOutputs:
    """Per level: scores (N, t, C) logits and deltas (N, t, 4) in the order of the level's anchors, and the anchors."""

    scores: list[Tensor]
    deltas: list[Tensor]
    anchors: list[LevelAnchors]


def per_anchor(maps: Tensor, columns: int) -> Tensor:
    """(N, A * columns, h, w) to (N, h*w*A, columns), in the order of anchors: row, column, anchor."""
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, columns)


# It creates attrs classes and keeps anchors, which torch.compile cannot; the convolutions before it are one graph.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def dense_outputs(
    scores: Sequence[Tensor], deltas: Sequence[Tensor], columns: int, anchors: AnchorGenerator
) -> DenseOutputs:
    """Outputs from L maps of scores (N, A * columns, h, w) and of deltas (N, A * 4, h, w), one row per anchor."""
    sizes = [(x.shape[-2], x.shape[-1]) for x in scores]
    return DenseOutputs(
        scores=[per_anchor(x, columns) for x in scores],
        deltas=[per_anchor(x, 4) for x in deltas],
        anchors=anchors(sizes, scores[0].device),
    )


@frozen(eq=False)
class AnchorMatches:
    """Per image: anchors (T, 4) of all levels, and their assignment; unusable anchors are ignored."""

    anchors: list[Tensor]
    assignments: list[Assignment]


def match_anchors(
    levels: Sequence[LevelAnchors],
    strides: Sequence[int],
    assigner: Assigner,
    targets: Sequence[Targets],
    batch: Batch,
    allowed_border: int = -1,
    touching: bool = False,
) -> AnchorMatches:
    """Assign the anchors of every image to its objects.

    An anchor is usable if its cell begins inside the padded image, and the anchor is `within_border` of its image.
    """
    anchors = torch.cat([level.boxes for level in levels])
    valid = torch.cat([level.valid(batch.padded_size, stride) for level, stride in zip(levels, strides, strict=True)])
    usable = [valid & within_border(anchors, info, allowed_border, touching) for info in batch.infos]
    everywhere = [anchors] * len(batch)
    return AnchorMatches(everywhere, assign_images(assigner, everywhere, targets, rows_of(usable)))


def within_border(anchors: Tensor, info: ImageInfo, allowed: int, touching: bool = False) -> Tensor:
    """(T,) bool: whether anchors (T, 4) extend at most `allowed` pixels outside the image; negative: no limit.

    touching: whether an anchor may end exactly at the limit on the right and below, as on the left and above.
    """
    if allowed < 0:
        return torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
    height, width = info.size
    x1, y1, x2, y2 = anchors.unbind(1)
    right, bottom = width + allowed, height + allowed
    ends = (x2 <= right) & (y2 <= bottom) if touching else (x2 < right) & (y2 < bottom)
    return (x1 >= -allowed) & (y1 >= -allowed) & ends


def assign_usable(
    assign: Callable[[Tensor, Tensor], Assignment], anchors: Tensor, boxes: Tensor, usable: Tensor
) -> Assignment:
    """Assign the usable anchors to objects and ignore the others.

    Args:
        assign: assigns anchors (u, ...) to objects (M, 4), as an `Assigner` does.
        anchors: (T, ...), as `assign` takes them.
        boxes: (M, 4), the image's objects.
        usable: (T,) bool.
    """
    return _assign_rows(assign, anchors, boxes, rows_of([usable])[0])


def assign_images(
    assign: Callable[[Tensor, Tensor], Assignment],
    anchors: Sequence[Tensor],
    targets: Sequence[Targets],
    usable: Sequence[Tensor],
) -> list[Assignment]:
    """As `assign_usable`, for anchors (T, ...) of each image; `usable` are the rows (u,) of the usable ones."""
    rows = zip(anchors, targets, usable, strict=True)
    return [_assign_rows(assign, a, target.boxes, at) for a, target, at in rows]


def _assign_rows(
    assign: Callable[[Tensor, Tensor], Assignment], anchors: Tensor, boxes: Tensor, rows: Tensor
) -> Assignment:
    if len(rows) == len(anchors):
        return assign(anchors, boxes)
    objects = torch.full((len(anchors),), IGNORED, dtype=torch.int64, device=anchors.device)
    objects[rows] = assign(anchors[rows], boxes).objects
    return Assignment(objects)


def sample_all(assignment: Assignment) -> Sampled:
    """All positive and negative anchors, for losses that need no sampling."""
    return sample_all_images([assignment])[0]


def sample_all_images(assignments: Sequence[Assignment]) -> list[Sampled]:
    """`sample_all` of each image. A device is waited for once."""
    return to_device(all_of_images(assignments), assignments[0].objects.device)


def anchor_labels(chosen: Sequence[Sampled], targets: Sequence[Targets], anchors: int, background: int) -> Tensor:
    """(N, anchors) int64: each anchor's class, `background`, or IGNORED_LABEL if it was not sampled."""
    labels = torch.full((len(chosen), anchors), IGNORED_LABEL, device=targets[0].labels.device)
    for row, c, target in zip(labels, chosen, targets, strict=True):
        row[c.negative] = background
        row[c.positive] = target.labels[c.objects]
    return labels


def dense_box_loss(
    loss: Loss,
    coder: BoxCoder,
    anchors: Sequence[Tensor],
    deltas: Sequence[Tensor],
    chosen: Sequence[Sampled],
    targets: Sequence[Targets],
    count: Tensor | float,
) -> LossTerm:
    """The box loss of the positive anchors of all images, normalised by `count`.

    Args:
        loss, coder: of the head.
        anchors: (T, 4) per image.
        deltas: (T, 4) per image.
        chosen: sampled anchors per image.
        targets: ground truth per image.
        count: normaliser.
    """
    predicted = torch.cat([row[s.positive] for row, s in zip(deltas, chosen, strict=True)])
    at = torch.cat([a[s.positive] for a, s in zip(anchors, chosen, strict=True)])
    boxes = torch.cat([t.boxes[s.objects] for t, s in zip(targets, chosen, strict=True)])
    return regression(loss, coder, at, predicted, boxes, count)


def dense_losses(
    scores: Sequence[Tensor],
    deltas: Sequence[Tensor],
    matches: AnchorMatches,
    targets: Sequence[Targets],
    *,
    num_classes: int,
    cls_loss: Loss,
    box_loss: Loss,
    coder: BoxCoder,
    count_of: Callable[[int, int], Tensor] | None = None,
) -> Losses:
    """`cls` over all anchors and `box` over the positive ones, both normalised by the number of positive anchors.

    Args:
        scores: per level (N, t, num_classes) logits.
        deltas: per level (N, t, 4).
        matches: anchors and assignment per image.
        targets: ground truth per image.
        num_classes: number of foreground classes.
        cls_loss: takes logits and labels; the label `num_classes` is background, IGNORED_LABEL is ignored.
        box_loss, coder: of the head.
        count_of: number of positive anchors and of images to the normaliser (None: the former).
    """
    logits, moves = (torch.cat(list(x), 1).flatten(0, 1) for x in (scores, deltas))
    at = _table_rows(matches.assignments, targets)
    given = [t.labels for t in targets]
    table = [*given, given[0].new_full((1,), num_classes), given[0].new_full((1,), IGNORED_LABEL)]
    boxes = torch.cat([t.boxes for t in targets])
    positive = (at < len(boxes)).nonzero().flatten()
    count = float(len(positive)) if count_of is None else count_of(len(positive), len(targets))
    anchors = torch.cat(matches.anchors)
    return {
        "cls": cls_loss(logits, torch.cat(table)[at], count),
        "box": regression(box_loss, coder, anchors[positive], moves[positive], boxes[at[positive]], count),
    }


def _table_rows(assignments: Sequence[Assignment], targets: Sequence[Targets]) -> Tensor:
    """(N * T,) int64: each anchor's row in a table of all images' objects, then background, then ignored."""
    first = list(accumulate((len(t) for t in targets), initial=0))
    objects = torch.cat([a.objects for a in assignments])
    shifted = torch.cat([a.objects + start for a, start in zip(assignments, first[:-1], strict=True)])
    return torch.where(objects >= 0, shifted, first[-1] + BACKGROUND - objects)


@frozen(eq=False)
class Candidates:
    """Of one image: boxes (n, 4) clipped to it, scores (n,), labels (n,) int64 (columns), levels (n,) int64."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    levels: Tensor

    def where(self, keep: Tensor) -> Candidates:
        """The candidates that a mask (n,) bool, or indices (m,) int64, select."""
        keep = keep.nonzero().flatten() if keep.dtype == torch.bool else keep  # once, not for each field
        return Candidates(self.boxes[keep], self.scores[keep], self.labels[keep], self.levels[keep])

    def larger_than(self, side: float) -> Tensor:
        """(n,) bool: whether width and height are above `side` pixels of the network's input."""
        return ((self.boxes[:, 2:] - self.boxes[:, :2]) > side).all(1)


def best_candidates(
    outputs: DenseOutputs,
    row: int,
    info: ImageInfo,
    coder: BoxCoder,
    *,
    limit: int | None,
    above: float | Sequence[float] | None = None,
    clipped: bool = True,
) -> Candidates:
    """The best (anchor, column) pairs of each level of one image, decoded; by level, best first.

    Scores are returned as in `outputs`: logits (their order suffices, which saves a sigmoid of millions of values), or
    probabilities if the head stores these.

    Args:
        outputs: of the batch.
        row: index of the image in the batch.
        info: of the image; it has the size to clip to.
        coder: decodes the deltas.
        limit: maximum pairs per level; None: all.
        above: score threshold, or that of each level; None keeps all.
        clipped: whether boxes are clipped to the image.
    """
    values = [full_precision(scores[row]) for scores in outputs.scores]
    if above is None:
        pairs = [_best_pairs(x, limit) for x in values]
    else:
        pairs = _best_pairs_above(values, limit, above if isinstance(above, Sequence) else [above] * len(values))
    at, labels = _rows_and_columns([at for _, at in pairs], [x.shape[1] for x in values])
    anchors = torch.cat([level.boxes[rows] for level, rows in zip(outputs.anchors, at, strict=True)])
    deltas = torch.cat([x[row][rows] for x, rows in zip(outputs.deltas, at, strict=True)])
    return Candidates(
        coder.decode(anchors, deltas, info.size if clipped else None),
        torch.cat([best for best, _ in pairs]),
        labels,
        _level_numbers(at),
    )


@frozen(eq=False)
class BatchCandidates:
    """Of N images: boxes (N, n, 4), scores (N, n), levels (N, n) int64; valid (N, n) bool, or None if there is no
    padding.
    """

    boxes: Tensor
    scores: Tensor
    levels: Tensor
    valid: Tensor | None = None

    @classmethod
    def of(cls, images: Sequence[Candidates]) -> BatchCandidates:
        """The candidates of each image, padded to the most."""
        if len(images) == 1:
            return cls(images[0].boxes[None], images[0].scores[None], images[0].levels[None])
        rows = [(x.boxes, x.scores, x.levels, torch.ones_like(x.scores, dtype=torch.bool)) for x in images]
        return cls(*(pad_sequence(list(field), batch_first=True) for field in zip(*rows, strict=True)))

    def larger_than(self, side: float) -> Tensor:
        """(N, n) bool: whether width and height are above `side` pixels of the network's input."""
        return ((self.boxes[..., 2:] - self.boxes[..., :2]) > side).all(-1)


def best_of_images(outputs: DenseOutputs, infos: Sequence[ImageInfo], coder: BoxCoder, limit: int) -> BatchCandidates:
    """As `best_candidates` without a threshold, of all images at once. The head has one column."""
    pairs = [full_precision(values)[..., 0].topk(_at_most(limit, values.shape[1])) for values in outputs.scores]
    at = [indices for _, indices in pairs]
    anchors = torch.cat([level.boxes[rows] for level, rows in zip(outputs.anchors, at, strict=True)], 1)
    deltas = torch.cat(
        [moves.gather(1, rows[..., None].expand(-1, -1, 4)) for moves, rows in zip(outputs.deltas, at, strict=True)], 1
    )
    boxes = coder.decode(anchors.flatten(0, 1), deltas.flatten(0, 1)).reshape(anchors.shape)
    scores = torch.cat([best for best, _ in pairs], 1)
    return BatchCandidates(
        coder.clip_batch(boxes, [info.size for info in infos]),
        scores,
        _level_numbers([rows[0] for rows in at]).expand_as(scores),
    )


def _rows_and_columns(at: Sequence[Tensor], columns: Sequence[int]) -> tuple[Sequence[Tensor], Tensor]:
    """Of indices (n,) into flattened values (t, C) of each level: the rows (n,) of each, and the columns of all."""
    if set(columns) == {1}:
        everywhere = torch.cat(list(at))
        return at, torch.zeros_like(everywhere)
    if len(set(columns)) == 1:
        everywhere = torch.cat(list(at))
        return (everywhere // columns[0]).split([len(x) for x in at]), everywhere % columns[0]
    pairs = list(zip(at, columns, strict=True))
    return [x // count for x, count in pairs], torch.cat([x % count for x, count in pairs])


def _level_numbers(at: Sequence[Tensor]) -> Tensor:
    """(n,) int64: the number of the level of each of the indices (n,) of all levels."""
    counts = [len(indices) for indices in at]
    return send_indices([np.repeat(np.arange(len(counts)), counts)], at[0].device)[0]


def best_anchors(outputs: DenseOutputs, row: int, limit: int | None) -> DenseOutputs:
    """The anchors of image `row` with the highest logits, at most `limit` per level (None: all), ranked by their best
    column: outputs of one image, whose scores are probabilities.
    """
    scores, deltas, anchors = [], [], []
    for logits, moves, level in zip(outputs.scores, outputs.deltas, outputs.anchors, strict=True):
        values = full_precision(logits[row])
        best = values.amax(1).topk(_at_most(limit, len(level.boxes))).indices
        scores.append(values[None, best].sigmoid())
        deltas.append(moves[row : row + 1, best])
        anchors.append(LevelAnchors(level.boxes[best], level.cells[best]))
    return DenseOutputs(scores, deltas, anchors)


def _at_most(limit: int | None, count: int) -> int:
    return count if limit is None else min(limit, count)


def _best_pairs(values: Tensor, limit: int | None) -> tuple[Tensor, Tensor]:
    """The `limit` largest values (n,) of (t, C), best first, and their indices (n,) in the flattened values."""
    best, at = values.flatten().topk(_at_most(limit, values.numel()))
    return best, at


def _best_pairs_above(
    levels: Sequence[Tensor], limit: int | None, above: Sequence[float]
) -> list[tuple[Tensor, Tensor]]:
    """`_best_pairs` of each level among the values above its threshold."""
    found = []
    flat = [values.flatten() for values in levels]
    masks = [values > least for values, least in zip(flat, above, strict=True)]
    for values, kept in zip(flat, _rows_of_many(masks), strict=True):
        best, order = values[kept].topk(_at_most(limit, len(kept)))
        found.append((best, kept[order]))
    return found


def _rows_of_many(masks: Sequence[Tensor]) -> list[Tensor]:
    """As `rows_of`. Large masks stay on the device, which is then waited for twice."""
    sizes = [len(mask) for mask in masks]
    if sum(sizes) <= FEW:
        return rows_of(masks)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    selected = torch.cat(list(masks)).nonzero().flatten()
    ends = torch.searchsorted(selected, torch.tensor(starts[1:], device=selected.device)).tolist()
    parts = selected.tensor_split(ends)
    return [part - start for part, start in zip(parts, starts, strict=True)]


def best_per_class(
    outputs: DenseOutputs, row: int, info: ImageInfo, coder: BoxCoder, *, limit: int | None, above: float | None = None
) -> Candidates:
    """The best anchors of each column over all levels of one image, decoded (torchvision's SSD); by column.

    Args: as `best_candidates`; `limit` is per column.
    """
    values = full_precision(torch.cat([scores[row] for scores in outputs.scores]))
    at, labels = _best_of_columns(values, limit, above)
    best = values[at, labels]
    anchors = torch.cat([level.boxes for level in outputs.anchors])
    deltas = torch.cat([deltas[row] for deltas in outputs.deltas])
    counts = torch.tensor([len(level.boxes) for level in outputs.anchors], device=at.device)
    levels = torch.bucketize(at, counts.cumsum(0), right=True)
    return Candidates(coder.decode(anchors[at], deltas[at], info.size), best, labels, levels)


def _best_of_columns(values: Tensor, limit: int | None, above: float | None) -> tuple[Tensor, Tensor]:
    """Rows and columns (n,) of the `limit` largest values of each column of (T, C), by column.

    With a threshold, only the values above it are sorted; they are few.
    """
    if above is None:
        at = values.topk(_at_most(limit, len(values)), 0).indices.T  # (C, n)
        return at.flatten(), torch.arange(len(at), device=at.device).repeat_interleave(at.shape[1])
    at, labels = (values > above).nonzero().unbind(1)
    order = values[at, labels].argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]
    at, labels = at[order], labels[order]
    starts = torch.searchsorted(labels, torch.arange(values.shape[1], device=labels.device))
    rank = torch.arange(len(labels), device=labels.device) - starts[labels]
    first = (rank < _at_most(limit, len(values))).nonzero().flatten()
    return at[first], labels[first]


def suppress(
    best: Candidates,
    info: ImageInfo,
    config: DetectionSettings,
    clip_to: Callable[[Tensor], Tensor] | None = None,
) -> Detections:
    """NMS of one image's candidates, in original or network pixels; detections in original pixels.

    clip_to: clips the boxes (n, 4) before NMS, in the pixels of NMS.
    """
    network = config.nms_in == "network"
    placed = best.boxes if network else to_original(best.boxes, info)
    if clip_to is not None:
        placed = clip_to(placed)
    found = pairs_nms(placed, best.scores, best.labels, config)
    boxes = to_original(found.boxes, info) if network else found.boxes
    detections = Detections(boxes=boxes, scores=found.scores, labels=found.labels)
    if not config.clip_original:
        return detections
    clipped, real = inside_original(boxes, info)
    return evolve(detections, boxes=clipped)[real.nonzero().flatten()]
