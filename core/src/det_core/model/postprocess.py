"""Post-processing of all images at once: NMS, and conversion to pixels of the original images.

Letters: N images, R regions of all images, r regions of one image, K foreground classes, p (box, class) pairs of all
images, n detections of all images. Boxes are xyxy.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

import det_ops
from det_core.boxes.coders import clip_images
from det_core.boxes.device_copies import rows_of, send, send_indices
from det_core.compressed_masks import RegionMasks
from det_core.contracts import BoxCoder
from det_core.model.detection_config import DetectionSettings, SoftNMSConfig
from det_core.structures import Detections, ImageInfo


def to_original(boxes: Tensor, info: ImageInfo) -> Tensor:
    """Convert boxes (..., 4) from network pixels to pixels of the original image."""
    return _to_original(boxes, *_factors(boxes, [info]))


def to_network(boxes: Tensor, info: ImageInfo) -> Tensor:
    """Convert boxes (..., 4) from pixels of the original image to network pixels."""
    return _to_network(boxes, *_factors(boxes, [info]))


def boxes_to_original(boxes: Tensor, infos: Sequence[ImageInfo]) -> Tensor:
    """Convert boxes (N, n, 4) of N images as `to_original` does."""
    images = torch.arange(len(infos), device=boxes.device)[:, None]
    return _to_original(boxes, *_factors(boxes, infos, images))


def _to_original(boxes: Tensor, factors: Tensor, last: Tensor | None) -> Tensor:
    return boxes / factors if last is None else (boxes - last) / factors + last


def _to_network(boxes: Tensor, factors: Tensor, last: Tensor | None) -> Tensor:
    return boxes * factors if last is None else (boxes - last) * factors + last


def _factors(boxes: Tensor, infos: Sequence[ImageInfo], images: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Factors of the coordinates, and what inclusive boxes end after their last pixel (None: no box is inclusive); for
    boxes (..., 4) of `images` (...,), or all boxes of the only image.
    """
    scales = [[x, y, x, y] for y, x in (info.scale for info in infos)]
    lasts = [[0.0, 0.0, 1.0, 1.0] if info.inclusive else [0.0] * 4 for info in infos]
    factors = _rows(boxes, scales, images)
    return factors, _rows(boxes, lasts, images) if any(info.inclusive for info in infos) else None


def _rows(like: Tensor, table: Sequence[Sequence[float]], images: Tensor | None) -> Tensor:
    """The row of a table (N, c) for each of `images` (p,), or, of the only image, the row (c,) that all share."""
    values = send(torch.tensor(table, dtype=like.dtype), like.device)
    return values[0] if images is None or len(table) == 1 else values[images]


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


def larger_than(boxes: Tensor, side: float) -> Tensor:
    """(...,) bool: whether the width and height of boxes (..., 4) are above `side` pixels."""
    return ((boxes[..., 2:] - boxes[..., :2]) > side).all(-1)


@frozen(eq=False)
class Pairs:
    """(box, class) pairs of all images, those of an image together: boxes (p, 4), scores (p,), labels (p,) int64.

    images: (p,) int64, ascending. rows: (p,) int64, the region that a pair comes from, or None where nobody asks.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    images: Tensor
    rows: Tensor | None = None

    @classmethod
    def where(cls, keep: Tensor, boxes: Sequence[Tensor], scores: Tensor) -> Pairs:
        """The pairs of regions and classes that a mask selects.

        Args:
            keep: (R, K) bool.
            boxes: (r, K, 4) of each image's regions, or (r, 4) if all classes share one box.
            scores: (R, K) probabilities.
        """
        rows, labels = keep.nonzero(as_tuple=True)
        counts = [len(own) for own in boxes]
        images = send_indices([np.repeat(np.arange(len(counts)), counts)], rows.device)[0]
        every = boxes[0] if len(boxes) == 1 else torch.cat(list(boxes))
        own = every[rows, labels] if every.dim() == 3 else every[rows]
        return cls(own, scores[rows, labels], labels, images[rows], rows)

    def larger_than(self, side: float) -> Tensor:
        """(p,) bool: whether width and height are above `side` pixels."""
        return larger_than(self.boxes, side)

    def only(self, keep: Tensor) -> Pairs:
        """The pairs that a mask (p,) bool selects."""
        at = keep.nonzero().flatten()
        rows = None if self.rows is None else self.rows[at]
        return Pairs(self.boxes[at], self.scores[at], self.labels[at], self.images[at], rows)


@frozen(eq=False)
class Chosen:
    """The detections of all images, an image's together and best first.

    boxes: (n, 4) in pixels of the original images. network: (n, 4), the same in those of the padded network input.
    scores: (n,). labels: (n,) int64. rows: (n,) int64 as in the pairs. counts: of each image.
    """

    boxes: Tensor
    network: Tensor
    scores: Tensor
    labels: Tensor
    rows: Tensor | None
    counts: tuple[int, ...]

    def of_images(self, values: Tensor) -> tuple[Tensor, ...]:
        """Values (n, ...) as those of each image."""
        return values.split(self.counts)

    def detections(self, masks: Sequence[RegionMasks] | None = None) -> list[Detections]:
        """The detections of each image, with its masks if given."""
        given: Sequence[RegionMasks | None] = [None] * len(self.counts) if masks is None else masks
        fields = (self.of_images(x) for x in (self.boxes, self.scores, self.labels))
        return [
            Detections(boxes=boxes, scores=scores, labels=labels, masks=own)
            for boxes, scores, labels, own in zip(*fields, given, strict=True)
        ]


def choose(pairs: Pairs, infos: Sequence[ImageInfo], config: DetectionSettings, *, original: bool = False) -> Chosen:
    """NMS of pairs within each class of each image, the best of each image, and clipping to the original image if the
    configuration says so. No score threshold is applied. With soft-NMS, the scores are the lowered ones.

    original: whether the boxes are in pixels of the original images, where NMS then is, too; else network pixels.
    """
    factors = _factors(pairs.boxes, infos, pairs.images)
    there = pairs.boxes if original else _to_original(pairs.boxes, *factors)
    network = _to_network(pairs.boxes, *factors) if original else pairs.boxes
    placed = network if config.nms_in == "network" and not original else there
    real = None
    if config.clip_original:
        sizes = _rows(there, [info.original_size for info in infos], pairs.images)
        there = clip_images(there, sizes.expand(len(there), 2))
        real = (there[:, 2:] > there[:, :2]).all(1)
    kept, scores = _suppressed(evolve(pairs, boxes=placed), config)
    real = None if real is None else real[kept]
    at, counts = _best_of_images(pairs.images[kept], len(infos), config.max_detections, real)
    rows = kept[at]
    return Chosen(
        there[rows],
        network[rows],
        scores[at],
        pairs.labels[rows],
        None if pairs.rows is None else pairs.rows[rows],
        tuple(counts),
    )


def suppress(
    pairs: Pairs, infos: Sequence[ImageInfo], config: DetectionSettings, *, original: bool = False
) -> list[Detections]:
    """The detections of each image, in original pixels, that `choose` finds."""
    return choose(pairs, infos, config, original=original).detections()


def _suppressed(pairs: Pairs, config: DetectionSettings) -> tuple[Tensor, Tensor]:
    """(m,) indices of the pairs that NMS keeps, best of all images first, and their scores (m,)."""
    groups = pairs.images if config.class_agnostic_nms else (pairs.images << 32) + pairs.labels
    if config.soft_nms is not None:
        return _soft_nms(pairs.boxes, pairs.scores, groups, config.nms_threshold, config.soft_nms)
    kept = det_ops.batched_nms(pairs.boxes, pairs.scores, groups, config.nms_threshold)
    return kept, pairs.scores[kept]


def _best_of_images(images: Tensor, count: int, limit: int, real: Tensor | None) -> tuple[Tensor, list[int]]:
    """The `limit` first of each of `count` images, in order of the images, without those that are not `real`.

    Args:
        images: (m,) int64.
        real: (m,) bool; None: all are.

    Returns:
        (n,) int64 indices, and the numbers of each image.
    """
    if count == 1:
        order, starts = torch.arange(len(images), device=images.device), [0, len(images)]
    else:
        order = images.argsort(stable=True)
        edges = torch.arange(count + 1, device=images.device)
        starts = torch.searchsorted(images[order], edges).tolist()
    firsts = [order[start : min(end, start + limit)] for start, end in pairwise(starts)]
    if real is not None:
        firsts = [own[rows] for own, rows in zip(firsts, rows_of([real[own] for own in firsts]), strict=True)]
    return torch.cat(firsts), [len(own) for own in firsts]


def _soft_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, soft: SoftNMSConfig
) -> tuple[Tensor, Tensor]:
    """(m,) indices and (m,) lowered scores of boxes (p, 4) with scores (p,), per group (p,), best first."""
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
