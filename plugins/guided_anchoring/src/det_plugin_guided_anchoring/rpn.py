"""GA-RPN: region proposals from guided anchors (Wang et al., Guided Anchoring, 2019, section 3.5).

Letters: N images, L levels, C channels, h w feature size, t cells of one level, T cells of all levels, n boxes of one
image. One anchor per cell. Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from det_core.contracts import Losses, ProposalHead
from det_core.model.dense_detection import best_candidates, dense_box_loss
from det_core.model.fold_batch_norm import conv_norm
from det_core.model.layers import normal_init
from det_core.specs import ConvSpec, FeatureSpec, ProposalLimits
from det_core.structures import Batch, Detections, ImageInfo, Targets
from det_plugin_guided_anchoring.anchoring import GuidedAnchors
from det_plugin_guided_anchoring.config import GARPNConfig
from det_plugin_guided_anchoring.prediction import (
    AnchorPrediction,
    FeatureAdaption,
    GuidedOutputs,
    LevelMaps,
    conv_at,
    guided_outputs,
    kept_cells,
)
from det_plugin_rcnn.proposals import ScoredBoxes, as_detections, choose_proposals, objectness_loss


class GARPN(ProposalHead[GuidedOutputs]):
    """A 3x3 convolution; where anchors are and their shapes; features adapted to these; object or not, and a box.

    In training every cell counts. In evaluation mode scores and boxes are computed only where there are anchors.
    """

    def __init__(self, config: GARPNConfig, features: FeatureSpec) -> None:
        super().__init__()
        self.config, guided = config, config.guided
        self.train_limits, self.test_limits = config.train_limits, config.test_limits
        self.conv = config.conv.build(ConvSpec(features.same_channels("ga_rpn"), config.channels, 3, padding=1))
        self.prediction = AnchorPrediction(config.channels, guided.location_prior)
        self.adaption = FeatureAdaption(config.channels, guided.offset_groups)
        self.scores = nn.Conv2d(config.channels, 1, 1)
        self.deltas = nn.Conv2d(config.channels, 4, 1)
        for layer in (self.conv, self.scores, self.deltas):
            normal_init(layer, 0.01)
        self.guided = GuidedAnchors(guided, features.strides)
        self.coder = config.coder.build()
        self.assigner = config.assigner.build()
        self.sampler = config.sampler.build()
        self.cls_loss = config.cls_loss.build()
        self.box_loss = config.box_loss.build()

    def forward(self, features: Sequence[Tensor]) -> GuidedOutputs:
        """L maps (N, C, h, w) to what each cell predicts: its anchor, one score, and four deltas from this anchor."""
        return guided_outputs([self._level(x) for x in features], self.guided.squares)

    def _level(self, x: Tensor) -> LevelMaps:
        x = conv_norm(self.conv, None, x, relu=True)
        location, shape = self.prediction(x, x)
        kept = None if self.training else kept_cells(location, self.config.guided.location_threshold)
        x = self.adaption(x, shape)
        return LevelMaps(location, shape, conv_at(self.scores, x, kept), conv_at(self.deltas, x, kept), kept)

    def losses(self, outputs: GuidedOutputs, targets: Sequence[Targets], batch: Batch) -> Losses:
        """`rpn_cls` and `rpn_box`, over the sampled anchors; `rpn_shape`, over the sampled cells; `rpn_location`."""
        matches = self.guided.match(outputs, self.assigner, targets, batch)
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
            "rpn_shape": matches.shape,
            "rpn_location": matches.location,
        }

    @torch.no_grad()
    def _propose(self, outputs: GuidedOutputs, info: ImageInfo, row: int, limits: ProposalLimits) -> ScoredBoxes:
        """Best anchors per level, decoded and clipped; NMS inside each level; best of all."""
        best = best_candidates(self.guided.of_image(outputs, row), 0, info, self.coder, limit=limits.before_nms)
        return choose_proposals(best, self.config, limits)

    def proposals(self, outputs: GuidedOutputs, batch: Batch, limits: ProposalLimits) -> list[Tensor]:
        """Per image (n, 4) detached boxes, best first; none where no cell has an anchor."""
        return [self._propose(outputs, info, row, limits).boxes for row, info in enumerate(batch.infos)]

    def predict(self, outputs: GuidedOutputs, batch: Batch) -> list[Detections]:
        """The proposals as detections of one class, in original pixels."""
        return [
            as_detections(self._propose(outputs, info, row, self.test_limits), info)
            for row, info in enumerate(batch.infos)
        ]
