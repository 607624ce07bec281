"""What RPN and GA-RPN share: losses, and the selection of proposals.

Letters: N images, T anchors of one image, n boxes of one image. Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

import det_ops
from det_core.contracts import Loss, Losses, Outputs, ProposalHead, Sampled
from det_core.model.candidates import Candidates, rows_of_images
from det_core.model.dense_detection import AnchorMatches, dense_box_loss
from det_core.model.padded_detection import PaddedChoice, nms_images, padded_detections, to_original_images
from det_core.model.postprocess import to_original
from det_core.model.sample_regions import sample_images
from det_core.padded import PaddedBatch, PaddedDetections, PaddedProposals
from det_core.specs import ProposalLimits
from det_core.structures import Batch, Detections, ImageInfo, LossTerm, Targets
from det_plugin_rcnn.config import RegionProposalConfig


@frozen(eq=False)
class ScoredBoxes:
    """boxes (n, 4) and scores (n,) in 0..1, best first."""

    boxes: Tensor
    scores: Tensor


class RegionProposalHead(ProposalHead[Outputs]):
    """Base of RPN and GA-RPN: the parts without weights, the losses of scores and deltas, and the proposals."""

    config: RegionProposalConfig

    def __init__(self, config: RegionProposalConfig) -> None:
        super().__init__()
        self.config = config
        self.train_limits, self.test_limits = config.train_limits, config.test_limits
        self.coder = config.coder.build()
        self.assigner = config.assigner.build()
        self.sampler = config.sampler.build()
        self.cls_loss = config.cls_loss.build()
        self.box_loss = config.box_loss.build()

    @abstractmethod
    def candidates(self, outputs: Outputs, batch: Batch | PaddedBatch, limit: int) -> Candidates:
        """The best anchors of each level and image, at most `limit` per level, decoded and clipped; `limit` of every
        level, padded, for a `PaddedBatch`.
        """

    def sampled_losses(
        self,
        scores: Sequence[Tensor],
        deltas: Sequence[Tensor],
        matches: AnchorMatches,
        targets: Sequence[Targets],
        batch: Batch,
    ) -> Losses:
        """`rpn_cls` and `rpn_box`, both normalised by the number of sampled anchors of the global batch, or by
        `loss_anchors` for each image.

        Args:
            scores: per level (N, t, 1) logits.
            deltas: per level (N, t, 4).
            matches: the anchors of each image and their assignments.
            targets, batch: of N images.
        """
        sampled = sample_images(self.sampler, matches.assignments, [info.key for info in batch.infos], "rpn")
        logits, moves = torch.cat(list(scores), 1)[..., 0], torch.cat(list(deltas), 1)
        nominal = self.config.loss_anchors
        counts = [nominal or len(s.positive) + len(s.negative) for s in sampled]
        count = float(sum(counts))
        return {
            "rpn_cls": objectness_loss(self.cls_loss, logits, sampled, count),
            "rpn_box": dense_box_loss(self.box_loss, self.coder, matches.anchors, list(moves), sampled, targets, count),
        }

    @torch.no_grad()
    def scored_proposals(self, outputs: Outputs, batch: Batch, limits: ProposalLimits) -> list[ScoredBoxes]:
        """Per image the best candidates after NMS within each level."""
        return choose_proposals(self.candidates(outputs, batch, limits.before_nms), self.config, limits)

    def proposals(self, outputs: Outputs, batch: Batch, limits: ProposalLimits) -> list[Tensor]:
        return [found.boxes for found in self.scored_proposals(outputs, batch, limits)]

    def predict(self, outputs: Outputs, batch: Batch) -> list[Detections]:
        """The proposals as detections of one class, in original pixels."""
        found = self.scored_proposals(outputs, batch, self.test_limits)
        return [as_detections(boxes, info) for boxes, info in zip(found, batch.infos, strict=True)]

    @torch.no_grad()
    def scored_proposals_padded(
        self, outputs: Outputs, batch: PaddedBatch, limits: ProposalLimits
    ) -> tuple[PaddedProposals, Tensor]:
        """As `scored_proposals`, in tensors of fixed size: the proposals, and their scores (N, P)."""
        config = self.config
        best = self.candidates(outputs, batch, limits.before_nms)
        scores = best.scores.sigmoid()
        best = best.only(best.larger_than(config.min_size) & (scores >= config.score_threshold))
        found = nms_images(best.boxes, scores, best.levels, best.valid, config.nms_threshold, limits.after_nms)
        rows, valid = found
        return PaddedProposals(boxes=rows_of_images(best.boxes, rows), valid=valid), scores.gather(1, rows)

    def proposals_padded(self, outputs: Outputs, batch: PaddedBatch, limits: ProposalLimits) -> PaddedProposals:
        return self.scored_proposals_padded(outputs, batch, limits)[0]

    def predict_padded(self, outputs: Outputs, batch: PaddedBatch) -> PaddedDetections:
        """As `predict`, in tensors of fixed size."""
        found, scores = self.scored_proposals_padded(outputs, batch, self.test_limits)
        labels = torch.zeros_like(scores, dtype=torch.int64)
        return padded_detections(
            to_original_images(found.boxes, batch), PaddedChoice(labels, labels, scores, found.valid)
        )


def choose_proposals(best: Candidates, config: RegionProposalConfig, limits: ProposalLimits) -> list[ScoredBoxes]:
    """The proposals of each image: candidates (scored by logits) after NMS within each level.

    Those that are too small, or score too low, are visited last, so that they suppress no other. A device is waited for
    once, for the numbers of proposals.
    """
    scores, real = best.scores.sigmoid(), best.valid & best.larger_than(config.min_size)
    if config.score_threshold:
        real &= scores >= config.score_threshold
    scores = torch.where(real, scores, -math.inf)
    most = min(limits.after_nms, scores.shape[1])
    kept, _ = det_ops.nms_images(best.boxes, scores, best.levels.expand_as(scores), config.nms_threshold, most)
    rows = kept.clamp(min=0)
    scores = scores.gather(1, rows)
    counts = ((kept >= 0) & (scores != -math.inf)).sum(1).tolist()
    boxes = rows_of_images(best.boxes, rows)
    return [ScoredBoxes(b[:count], s[:count]) for b, s, count in zip(boxes, scores, counts, strict=True)]


def as_detections(found: ScoredBoxes, info: ImageInfo) -> Detections:
    """One image's proposals as detections of one class, in original pixels."""
    return Detections(
        boxes=to_original(found.boxes, info),
        scores=found.scores,
        labels=torch.zeros(len(found.scores), dtype=torch.int64, device=found.scores.device),
    )


def objectness_loss(loss: Loss, scores: Tensor, sampled: Sequence[Sampled], count: float) -> LossTerm:
    """The objectness loss of the sampled anchors of all images, normalised by `count`.

    Args:
        loss: compares logits with 1 (object) and 0 (background).
        scores: (N, T) logits.
        sampled: per image.
        count: normaliser.
    """
    at = [torch.cat([s.positive, s.negative]) for s in sampled]
    logits = torch.cat([row[i] for row, i in zip(scores, at, strict=True)])
    labels = torch.cat([torch.cat([torch.ones_like(s.positive), torch.zeros_like(s.negative)]) for s in sampled])
    return loss(logits, labels, count)
