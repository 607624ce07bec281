"""The region proposal network (Ren et al., Faster R-CNN, 2015, section 3.1), over one or many levels.

Letters: N images, L levels, A anchors per cell, h w feature size, T anchors of all levels, n boxes of one image.
Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor, nn

import det_ops
from det_core.boxes.anchors import LevelAnchors
from det_core.boxes.sample import Sampled
from det_core.config.base import FeatureSpec, ProposalLimits
from det_core.model.contracts import Losses, ProposalHead
from det_core.model.layers import normal_init
from det_core.model.losses import box_loss, full_precision
from det_core.model.postprocess import to_original
from det_core.structures import Batch, Detections, ImageInfo, Targets
from det_plugin_rcnn.config import RPNConfig


@frozen(eq=False)
class RPNOutputs:
    """Per level: scores (N, h*w*A) logits, deltas (N, h*w*A, 4), in the anchors' order; anchors of each level."""

    scores: list[Tensor]
    deltas: list[Tensor]
    anchors: list[LevelAnchors]


@frozen(eq=False)
class ScoredBoxes:
    """boxes (n, 4) and scores (n,) in 0..1, best first."""

    boxes: Tensor
    scores: Tensor


class RPN(ProposalHead):
    """A 3x3 convolution and two 1x1 siblings, shared over levels: object or not, and a box, per anchor."""

    def __init__(self, config: RPNConfig, features: FeatureSpec) -> None:
        super().__init__()
        self.config = config
        self.train_limits, self.test_limits = config.train_limits, config.test_limits
        channels = features.same_channels("rpn")
        per_cell = config.anchors.anchors_per_cell()
        self.conv = config.conv.build(channels, config.channels, 3, padding=1)
        self.scores = nn.Conv2d(config.channels, per_cell, 1)
        self.deltas = nn.Conv2d(config.channels, per_cell * 4, 1)
        for layer in (self.conv, self.scores, self.deltas):
            normal_init(layer, 0.01)
        self.strides = features.strides
        self.anchors = config.anchors.build(features.strides)
        self.coder = config.coder.build()
        self.assigner = config.assigner.build()
        self.sampler = config.sampler.build()
        self.cls_loss = config.cls_loss.build()
        self.box_loss = config.box_loss.build()

    def forward(self, features: Sequence[Tensor]) -> RPNOutputs:
        """L maps (N, C, h, w) to scores and deltas of every anchor."""
        scores, deltas = [], []
        for x in features:
            x = self.conv(x).relu()
            scores.append(self.scores(x).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.deltas(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4))
        sizes = [(int(x.shape[-2]), int(x.shape[-1])) for x in features]
        return RPNOutputs(scores, deltas, self.anchors(sizes, features[0].device))

    def losses(self, outputs: RPNOutputs, targets: Sequence[Targets], batch: Batch) -> Losses:  # type: ignore[override]
        """`rpn_cls` and `rpn_box`, both divided by the number of sampled anchors of the global batch."""
        anchors = torch.cat([level.boxes for level in outputs.anchors])
        scores, deltas = torch.cat(outputs.scores, 1), torch.cat(outputs.deltas, 1)
        valid = torch.cat(
            [
                level.valid(batch.padded_size, stride)
                for level, stride in zip(outputs.anchors, self.strides, strict=True)
            ]
        )
        sampled = [
            self._sample(anchors, valid, target, info) for target, info in zip(targets, batch.infos, strict=True)
        ]
        count = float(sum(len(s.positive) + len(s.negative) for s in sampled))
        at = [torch.cat([s.positive, s.negative]) for s in sampled]
        logits = torch.cat([row[i] for row, i in zip(scores, at, strict=True)])
        wanted = torch.cat([torch.cat([torch.ones_like(s.positive), torch.zeros_like(s.negative)]) for s in sampled])
        positives = torch.cat([row[s.positive] for row, s in zip(deltas, sampled, strict=True)])
        chosen = torch.cat([anchors[s.positive] for s in sampled])
        boxes = torch.cat([t.boxes[s.objects] for t, s in zip(targets, sampled, strict=True)])
        return {
            "rpn_cls": self.cls_loss(logits, wanted, count),
            "rpn_box": box_loss(self.box_loss, self.coder, chosen, positives, boxes, count),
        }

    def _sample(self, anchors: Tensor, valid: Tensor, target: Targets, info: ImageInfo) -> Sampled:
        """The anchors of one image that the losses look at."""
        inside = valid & self._within_border(anchors, info)
        usable = inside.nonzero().flatten()
        chosen = self.sampler(self.assigner(anchors[usable], target.boxes), info.key, "rpn")
        return Sampled(usable[chosen.positive], usable[chosen.negative], chosen.objects)

    def _within_border(self, anchors: Tensor, info: ImageInfo) -> Tensor:
        border = self.config.allowed_border
        if border < 0:
            return torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
        height, width = info.size
        x1, y1, x2, y2 = anchors.unbind(1)
        return (x1 >= -border) & (y1 >= -border) & (x2 < width + border) & (y2 < height + border)

    @torch.no_grad()
    def _propose(self, outputs: RPNOutputs, info: ImageInfo, row: int, limits: ProposalLimits) -> ScoredBoxes:
        """Best per level, decoded and clipped; NMS inside each level; best of all."""
        scores, boxes, levels = [], [], []
        for level, anchors in enumerate(outputs.anchors):
            logits = full_precision(outputs.scores[level][row])
            best = logits.topk(min(limits.before_nms, len(logits)))
            scores.append(best.values.sigmoid())
            deltas = outputs.deltas[level][row][best.indices]
            boxes.append(self.coder.decode(anchors.boxes[best.indices], deltas, info.size))
            levels.append(torch.full_like(best.indices, level))
        all_scores, all_boxes, all_levels = torch.cat(scores), torch.cat(boxes), torch.cat(levels)
        real = ((all_boxes[:, 2:] - all_boxes[:, :2]) > self.config.min_size).all(1).nonzero().flatten()
        kept = det_ops.batched_nms(all_boxes[real], all_scores[real], all_levels[real], self.config.nms_threshold)
        kept = real[kept[: limits.after_nms]]
        return ScoredBoxes(all_boxes[kept], all_scores[kept])

    def proposals(self, outputs: RPNOutputs, batch: Batch, limits: ProposalLimits) -> list[Tensor]:  # type: ignore[override]
        """Per image (n, 4) detached boxes, best first."""
        return [self._propose(outputs, info, row, limits).boxes for row, info in enumerate(batch.infos)]

    def predict(self, outputs: RPNOutputs, batch: Batch) -> list[Detections]:  # type: ignore[override]
        """The proposals as detections of one class, in original pixels."""
        found = [self._propose(outputs, info, row, self.test_limits) for row, info in enumerate(batch.infos)]
        return [
            Detections(
                boxes=to_original(f.boxes, info),
                scores=f.scores,
                labels=torch.zeros(len(f.scores), dtype=torch.int64, device=f.scores.device),
            )
            for f, info in zip(found, batch.infos, strict=True)
        ]
