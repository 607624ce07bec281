"""GA-RPN: region proposals from guided anchors (Wang et al., Guided Anchoring, 2019, section 3.5).

Letters: N images, L levels, C channels, h w feature size, t cells of one level, T cells of all levels. One
anchor per cell. Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from det_core.contracts import Losses
from det_core.model.candidates import Candidates, best_pairs
from det_core.model.fold_batch_norm import conv_norm
from det_core.model.layers import normal_init
from det_core.padded import PaddedBatch
from det_core.specs import ConvSpec, FeatureSpec
from det_core.structures import Batch, Targets
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
from det_plugin_rcnn.proposals import RegionProposalHead


class GARPN(RegionProposalHead[GuidedOutputs]):
    """A 3x3 convolution, anchor prediction, feature adaption, then an objectness score and a box per anchor.

    In evaluation mode, scores and deltas are computed only at cells with an anchor.
    """

    config: GARPNConfig

    def __init__(self, config: GARPNConfig, features: FeatureSpec) -> None:
        super().__init__(config)
        guided = config.guided
        self.conv = config.conv.build(ConvSpec(features.same_channels("ga_rpn"), config.channels, 3, padding=1))
        self.prediction = AnchorPrediction(config.channels, guided.location_prior)
        self.adaption = FeatureAdaption(config.channels, guided.offset_groups)
        self.scores = nn.Conv2d(config.channels, 1, 1)
        self.deltas = nn.Conv2d(config.channels, 4, 1)
        for layer in (self.conv, self.scores, self.deltas):
            normal_init(layer, 0.01)
        self.guided = GuidedAnchors(guided, features.strides)

    def forward(self, features: Sequence[Tensor]) -> GuidedOutputs:
        """L maps (N, C, h, w) to an anchor, one score and four deltas relative to the anchor, for every cell."""
        return guided_outputs([self._level(x) for x in features], self.guided.squares)

    def _level(self, x: Tensor) -> LevelMaps:
        x = conv_norm(self.conv, None, x, relu=True)
        location, shape = self.prediction(x, x)
        kept = None if self.training else kept_cells(location, self.config.guided.location_threshold)
        x = self.adaption(x, shape)
        return LevelMaps(location, shape, conv_at(self.scores, x, kept), conv_at(self.deltas, x, kept), kept)

    def losses(self, outputs: GuidedOutputs, targets: Sequence[Targets], batch: Batch) -> Losses:
        """`rpn_cls` and `rpn_box` of sampled anchors, `rpn_shape` of sampled cells, `rpn_location` of all cells."""
        guided = self.guided.match(outputs, self.assigner, targets, batch)
        losses = self.sampled_losses(outputs.scores, outputs.deltas, guided.matches, targets, batch)
        return {**losses, "rpn_shape": guided.shape, "rpn_location": guided.location}

    def candidates(self, outputs: GuidedOutputs, batch: Batch | PaddedBatch, limit: int) -> Candidates:
        """The best anchors of each level of each image, decoded and clipped; cells without an anchor have none."""
        return best_pairs(self.guided.of_images(outputs), self.coder, batch, limit=limit)
