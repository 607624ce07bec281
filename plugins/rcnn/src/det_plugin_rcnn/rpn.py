"""The region proposal network (Ren et al., Faster R-CNN, 2015, section 3.1), over one or many levels.

Letters: N images, L levels, A anchors per cell, h w feature size, T anchors of all levels, n boxes of one image.
Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from det_core.contracts import Losses, ProposalHead
from det_core.model.dense_detection import DenseOutputs, best_candidates, dense_box_loss, dense_outputs, match_anchors
from det_core.model.fold_batch_norm import conv_norm
from det_core.model.layers import normal_init
from det_core.specs import ConvSpec, FeatureSpec, ProposalLimits
from det_core.structures import Batch, Detections, ImageInfo, Targets
from det_plugin_rcnn.config import RPNConfig
from det_plugin_rcnn.proposals import ScoredBoxes, as_detections, choose_proposals, objectness_loss


class RPN(ProposalHead[DenseOutputs]):
    """A 3x3 convolution and two 1x1 siblings, shared over levels: object or not, and a box, per anchor."""

    def __init__(self, config: RPNConfig, features: FeatureSpec) -> None:
        super().__init__()
        self.config = config
        self.train_limits, self.test_limits = config.train_limits, config.test_limits
        channels = features.same_channels("rpn")
        per_cell = config.anchors.anchors_per_cell()
        self.conv = config.conv.build(ConvSpec(channels, config.channels, 3, padding=1))
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

    def forward(self, features: Sequence[Tensor]) -> DenseOutputs:
        """L maps (N, C, h, w) to scores (N, t, 1) and deltas (N, t, 4) of every anchor, level by level."""
        hidden = [conv_norm(self.conv, None, x, relu=True) for x in features]
        return dense_outputs([self.scores(x) for x in hidden], [self.deltas(x) for x in hidden], 1, self.anchors)

    def losses(self, outputs: DenseOutputs, targets: Sequence[Targets], batch: Batch) -> Losses:
        """`rpn_cls` and `rpn_box`, both divided by the number of sampled anchors of the global batch."""
        border = self.config.allowed_border
        matches = match_anchors(outputs.anchors, self.strides, self.assigner, targets, batch, border)
        sampled = [
            self.sampler(assignment, info.key, "rpn")
            for assignment, info in zip(matches.assignments, batch.infos, strict=True)
        ]
        scores, deltas = torch.cat(outputs.scores, 1)[..., 0], torch.cat(outputs.deltas, 1)
        count = float(sum(len(s.positive) + len(s.negative) for s in sampled))
        return {
            "rpn_cls": objectness_loss(self.cls_loss, scores, sampled, count),
            "rpn_box": dense_box_loss(
                self.box_loss, self.coder, matches.anchors, list(deltas), sampled, targets, count
            ),
        }

    @torch.no_grad()
    def _propose(self, outputs: DenseOutputs, info: ImageInfo, row: int, limits: ProposalLimits) -> ScoredBoxes:
        """Best per level, decoded and clipped; NMS inside each level; best of all."""
        best = best_candidates(outputs, row, info, self.coder, limit=limits.before_nms)
        return choose_proposals(best, self.config, limits)

    def proposals(self, outputs: DenseOutputs, batch: Batch, limits: ProposalLimits) -> list[Tensor]:
        """Per image (n, 4) detached boxes, best first."""
        return [self._propose(outputs, info, row, limits).boxes for row, info in enumerate(batch.infos)]

    def predict(self, outputs: DenseOutputs, batch: Batch) -> list[Detections]:
        """The proposals as detections of one class, in original pixels."""
        return [
            as_detections(self._propose(outputs, info, row, self.test_limits), info)
            for row, info in enumerate(batch.infos)
        ]
