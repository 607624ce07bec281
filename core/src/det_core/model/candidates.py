"""The best candidates of dense heads, of all images at once: pre-selection, decoding, clipping.

Letters: N images, L levels, K columns (classes), t anchors of one level, T anchors of all levels, n candidates of an
image, k limit of one level, p (candidate, class) pairs of all images. Boxes are xyxy in pixels of the padded network
input. Scores are logits (their order suffices, which saves a sigmoid of millions of values), or probabilities if the
head stores these. Results for a `PaddedBatch` are of fixed size, for export; the detections are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from det_core.boxes.device_copies import send_indices
from det_core.contracts import BoxCoder
from det_core.model.dense_detection import DenseOutputs
from det_core.model.postprocess import Pairs, larger_than
from det_core.padded import PaddedBatch
from det_core.structures import Batch, full_precision


@frozen(eq=False)
class Candidates:
    """(anchor, class) pairs of each image, by level, best first.

    boxes (N, n, 4), scores (N, n), labels (N, n) int64 (columns), levels (n,) int64; valid (N, n) bool.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    levels: Tensor
    valid: Tensor

    def only(self, keep: Tensor) -> Candidates:
        """Those that `keep` (N, n) bool does not select become padding."""
        return evolve(self, valid=self.valid & keep)

    def larger_than(self, side: float) -> Tensor:
        """(N, n) bool: whether width and height are above `side` pixels of the network's input."""
        return larger_than(self.boxes, side)

    def pairs(self) -> Pairs:
        """The valid ones."""
        images, at = self.valid.nonzero(as_tuple=True)
        return Pairs(self.boxes[images, at], self.scores[images, at], self.labels[images, at], images)


@frozen(eq=False)
class AnchorCandidates:
    """Anchors of each image with the scores of all classes, by level, best first.

    boxes (N, n, 4), scores (N, n, K), levels (n,) int64; valid (N, n, K) bool.
    """

    boxes: Tensor
    scores: Tensor
    levels: Tensor
    valid: Tensor

    def only(self, keep: Tensor) -> AnchorCandidates:
        """Pairs of anchors and classes that `keep` (N, n, K) bool does not select become padding."""
        return evolve(self, valid=self.valid & keep)

    def larger_than(self, side: float) -> Tensor:
        """(N, n, 1) bool: whether width and height are above `side` pixels of the network's input."""
        return larger_than(self.boxes, side)[..., None]

    def pairs(self) -> Pairs:
        """The valid ones."""
        images, at, labels = self.valid.nonzero(as_tuple=True)
        return Pairs(self.boxes[images, at], self.scores[images, at, labels], labels, images)


def top(values: Tensor, limit: int, *, padded: bool) -> tuple[Tensor, Tensor]:
    """The largest values of each row (N, n), best first, at most `limit`; and their indices.

    padded: `limit` values, the rest of which are -inf with index 0.
    """
    if not padded:
        best, at = values.topk(min(limit, values.shape[1]))
        return best, at
    padding = values.new_full((limit,), -math.inf).expand(values.shape[0], -1)
    best, at = torch.cat([values, padding], 1).topk(limit)
    return best, torch.where(best > -math.inf, at, 0)


def best_pairs(
    outputs: DenseOutputs, coder: BoxCoder, batch: Batch | PaddedBatch, *, limit: int, clipped: bool = True
) -> Candidates:
    """The best (anchor, column) pairs of each level and image, at most `limit`, decoded; padded for a `PaddedBatch`.

    Args:
        outputs: of the batch; anchors are (t, 4) of all images, or (N, t, 4) of each.
        coder: decodes the deltas, and clips boxes to their images.
        batch: of the images.
        limit: maximum pairs per level.
        clipped: whether boxes are clipped.
    """
    anchors, deltas, scores, labels = [], [], [], []
    for values, moves, level in zip(outputs.scores, outputs.deltas, outputs.anchors, strict=True):
        best, at, column = _best_of_level(full_precision(values), limit, isinstance(batch, PaddedBatch))
        anchors.append(_anchors_at(level.boxes, at))
        deltas.append(rows_of_images(moves, at))
        scores.append(best)
        labels.append(column)
    every = torch.cat(scores, 1)
    boxes = _decoded(coder, torch.cat(anchors, 1), torch.cat(deltas, 1), batch if clipped else None)
    return Candidates(boxes, every, torch.cat(labels, 1), _level_numbers(scores), every > -math.inf)


def _best_of_level(values: Tensor, limit: int, padded: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each image's values (N, t, K): the `limit` largest (N, k), their rows and their columns (N, k) int64.

    The rows of the best pairs are among the best rows, which are fewer to sort.
    """
    columns = values.shape[2]
    if columns == 1:
        best, at = top(values[..., 0], limit, padded=padded)
        return best, at, torch.zeros_like(at)
    among, rows = _best_rows(values, limit, padded)
    best, at = top(among.flatten(1), limit, padded=False)  # padded rows have enough values
    return best, rows.gather(1, torch.div(at, columns, rounding_mode="floor")), at % columns


def _best_rows(values: Tensor, limit: int, padded: bool) -> tuple[Tensor, Tensor]:
    """Of each image's values (N, t, K): the rows (N, k, K) with the largest values, and their numbers (N, k) int64."""
    most, rows = top(values.amax(2), limit, padded=padded)
    best = rows_of_images(values, rows)
    return torch.where((most > -math.inf)[..., None], best, -math.inf) if padded else best, rows


def best_anchors(
    outputs: DenseOutputs, coder: BoxCoder, batch: Batch | PaddedBatch, *, limit: int | None, clipped: bool = True
) -> AnchorCandidates:
    """The anchors of each level and image with the highest scores, ranked by their best column, with all columns.

    Args: as `best_pairs`; limit: maximum anchors per level; None: all anchors.
    """
    anchors, deltas, scores = [], [], []
    for values, moves, level in zip(outputs.scores, outputs.deltas, outputs.anchors, strict=True):
        found = full_precision(values)
        if limit is None:
            at = torch.arange(found.shape[1], device=found.device).expand(found.shape[0], -1)
        else:
            found, at = _best_rows(found, limit, isinstance(batch, PaddedBatch))
        scores.append(found)
        anchors.append(_anchors_at(level.boxes, at))
        deltas.append(rows_of_images(moves, at))
    every = torch.cat(scores, 1)
    boxes = _decoded(coder, torch.cat(anchors, 1), torch.cat(deltas, 1), batch if clipped else None)
    return AnchorCandidates(boxes, every, _level_numbers(scores), every > -math.inf)


def best_per_class(outputs: DenseOutputs, coder: BoxCoder, batch: Batch, *, limit: int, above: float) -> Pairs:
    """The best anchors of each column over all levels, at most `limit`, that score above a threshold (torchvision's
    SSD); by column, best first.

    Only the scores above the threshold are sorted; they are few.
    """
    values = full_precision(torch.cat(outputs.scores, 1))
    images, at, labels = (values > above).nonzero(as_tuple=True)
    found = values[images, at, labels]
    order = found.argsort(descending=True, stable=True)
    columns = images * values.shape[2] + labels
    order = order[columns[order].argsort(stable=True)]
    columns = columns[order]
    edges = torch.arange(values.shape[0] * values.shape[2], device=columns.device)
    rank = torch.arange(len(columns), device=columns.device) - torch.searchsorted(columns, edges)[columns]
    first = order[(rank < limit).nonzero().flatten()]
    anchors = torch.cat([level.boxes for level in outputs.anchors]).expand(values.shape[0], -1, -1)
    boxes = _decoded(coder, anchors, torch.cat(outputs.deltas, 1), batch)
    images = images[first]
    return Pairs(boxes[images, at[first]], found[first], labels[first], images)


def best_per_class_padded(
    outputs: DenseOutputs, coder: BoxCoder, batch: PaddedBatch, *, limit: int, above: float
) -> Candidates:
    """As `best_per_class`, with `limit` anchors of each column, padded."""
    values = full_precision(torch.cat(outputs.scores, 1)).transpose(1, 2)  # (N, K, T)
    columns = values.shape[1]
    best, at = top(values.flatten(0, 1), limit, padded=True)
    best, at = (x.unflatten(0, (-1, columns)).flatten(1) for x in (best, at))
    best = torch.where(best > above, best, -math.inf)
    anchors = torch.cat([level.boxes for level in outputs.anchors])
    labels = torch.arange(columns, device=at.device).repeat_interleave(limit).expand_as(at)
    boxes = _decoded(coder, anchors[at], rows_of_images(torch.cat(outputs.deltas, 1), at), batch)
    return Candidates(boxes, best, labels, torch.zeros_like(at[0]), best > -math.inf)


def _decoded(coder: BoxCoder, anchors: Tensor, deltas: Tensor, batch: Batch | PaddedBatch | None) -> Tensor:
    """Boxes (N, n, 4) from anchors and deltas (N, n, 4), clipped to the images of a batch if it is given."""
    boxes = coder.decode(anchors.flatten(0, 1), deltas.flatten(0, 1)).reshape(anchors.shape)
    if isinstance(batch, PaddedBatch):
        return coder.clip_images(boxes, batch.sizes)
    return boxes if batch is None else coder.clip_batch(boxes, [info.size for info in batch.infos])


def rows_of_images(values: Tensor, rows: Tensor) -> Tensor:
    """(N, m, ...): of each image's values (N, n, ...), the rows (N, m) int64."""
    shape = values.shape[2:]
    return values.gather(1, rows.reshape(*rows.shape, *[1] * len(shape)).expand(-1, -1, *shape))


def _anchors_at(boxes: Tensor, rows: Tensor) -> Tensor:
    """(N, m, 4): the anchors in the rows (N, m) of each image; boxes: (t, 4) of all images, or (N, t, 4) of each."""
    return boxes[rows] if boxes.dim() == 2 else rows_of_images(boxes, rows)


def _level_numbers(levels: Sequence[Tensor]) -> Tensor:
    """(n,) int64: the number of its level for each candidate of `levels`, (N, n', ...) of each level."""
    device = levels[0].device
    if torch.compiler.is_compiling():  # a size may be symbolic
        numbers = [torch.full((x.shape[1],), at, dtype=torch.int64, device=device) for at, x in enumerate(levels)]
        return torch.cat(numbers)
    counts = [x.shape[1] for x in levels]
    return send_indices([np.repeat(np.arange(len(counts)), counts)], device)[0]
