"""Functions that dense heads share: outputs with one row per anchor, targets, losses.

Letters: N images, L levels, A anchors per cell, C columns (classes), h w feature size, t anchors of one level,
T anchors of all levels, u usable anchors, M objects. Boxes are xyxy in pixels
of the padded network input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from attrs import frozen
from torch import Tensor

from det_core.boxes.device_copies import rows_of
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
from det_core.model.losses import box_loss as regression
from det_core.structures import Batch, ImageInfo, LossTerm, Targets

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
