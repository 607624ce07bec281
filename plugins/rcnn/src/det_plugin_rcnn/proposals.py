"""From scored boxes to proposals, and the loss of their scores: what an RPN does, whatever its anchors are.

Letters: N images, T anchors of one image, n boxes of one image. Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from attrs import frozen
from torch import Tensor

import det_ops
from det_core.contracts import Loss, Sampled
from det_core.model.dense_detection import Candidates
from det_core.model.postprocess import to_original
from det_core.specs import ProposalLimits
from det_core.structures import Detections, ImageInfo, LossTerm


@frozen(eq=False)
class ScoredBoxes:
    """boxes (n, 4) and scores (n,) in 0..1, best first."""

    boxes: Tensor
    scores: Tensor


class ProposalSettings(Protocol):
    """What the configuration of a head that proposes says of suppression."""

    @property
    def nms_threshold(self) -> float: ...
    @property
    def min_size(self) -> float: ...


def choose_proposals(best: Candidates, config: ProposalSettings, limits: ProposalLimits) -> ScoredBoxes:
    """Of one image's candidates, scored by logits, those above the least size; NMS inside each level; best of all."""
    scores = best.scores.sigmoid()
    real = best.larger_than(config.min_size).nonzero().flatten()
    kept = det_ops.batched_nms(best.boxes[real], scores[real], best.levels[real], config.nms_threshold)
    kept = real[kept[: limits.after_nms]]
    return ScoredBoxes(best.boxes[kept], scores[kept])


def as_detections(found: ScoredBoxes, info: ImageInfo) -> Detections:
    """An image's proposals as detections of one class, in original pixels."""
    return Detections(
        boxes=to_original(found.boxes, info),
        scores=found.scores,
        labels=torch.zeros(len(found.scores), dtype=torch.int64, device=found.scores.device),
    )


def objectness_loss(loss: Loss, scores: Tensor, sampled: Sequence[Sampled], count: float) -> LossTerm:
    """Object or not, of the sampled anchors of all images, normalised by `count`.

    Args:
        loss: of logits against 1 and 0.
        scores: (N, T) logits.
        sampled: of each image.
        count: what the sum is divided by.
    """
    at = [torch.cat([s.positive, s.negative]) for s in sampled]
    logits = torch.cat([row[i] for row, i in zip(scores, at, strict=True)])
    wanted = torch.cat([torch.cat([torch.ones_like(s.positive), torch.zeros_like(s.negative)]) for s in sampled])
    return loss(logits, wanted, count)
