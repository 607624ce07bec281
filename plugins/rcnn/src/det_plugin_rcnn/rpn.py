"""The region proposal network (Ren et al., Faster R-CNN, 2015, section 3.1), on one or several levels.

Letters: N images, L levels, A anchors per cell, C channels, h w feature size, t anchors of one level.
Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from det_core.contracts import Losses
from det_core.model.candidates import Candidates, best_pairs
from det_core.model.dense_detection import DenseOutputs, dense_outputs, match_anchors
from det_core.model.fold_batch_norm import conv_norm
from det_core.model.layers import normal_init
from det_core.padded import PaddedBatch
from det_core.specs import ConvSpec, FeatureSpec
from det_core.structures import Batch, Targets
from det_plugin_rcnn.config import RPNConfig
from det_plugin_rcnn.proposals import RegionProposalHead


class RPN(RegionProposalHead[DenseOutputs]):
    """Shared 3x3 convolutions, by default one, then two 1x1 convolutions: an objectness score and a box per anchor."""

    config: RPNConfig
    compiles = True

    def __init__(self, config: RPNConfig, features: FeatureSpec) -> None:
        super().__init__(config)
        channels, width = features.same_channels("rpn"), config.channels
        per_cell = config.anchors.anchors_per_cell()
        # The first has a name of its own: that of the only one in checkpoints from before `num_convs`.
        self.conv = config.conv.build(ConvSpec(channels, width, 3, padding=1))
        more = range(1, config.num_convs)
        self.more_convs = nn.ModuleList(config.conv.build(ConvSpec(width, width, 3, padding=1)) for _ in more)
        self.scores = nn.Conv2d(width, per_cell, 1)
        self.deltas = nn.Conv2d(width, per_cell * 4, 1)
        for layer in (self.conv, *self.more_convs, self.scores, self.deltas):
            normal_init(layer, 0.01)
        self.strides = features.strides
        self.anchors = config.anchors.build(features.strides)

    def forward(self, features: Sequence[Tensor]) -> DenseOutputs:
        """L maps (N, C, h, w) to scores (N, t, 1) and deltas (N, t, 4) per level, one row per anchor."""
        hidden = [self.hidden(x) for x in features]
        return dense_outputs([self.scores(x) for x in hidden], [self.deltas(x) for x in hidden], 1, self.anchors)

    def hidden(self, x: Tensor) -> Tensor:
        """(N, C, h, w) of one level to the outputs of the shared convolutions, (N, C', h, w)."""
        for conv in (self.conv, *self.more_convs):
            x = conv_norm(conv, None, x, relu=True)
        return x

    def losses(self, outputs: DenseOutputs, targets: Sequence[Targets], batch: Batch) -> Losses:
        """`rpn_cls` and `rpn_box`, both normalised as `sampled_losses` says."""
        limit, touching = self.config.allowed_border, self.config.touching
        matches = match_anchors(outputs.anchors, self.strides, self.assigner, targets, batch, limit, touching)
        return self.sampled_losses(outputs.scores, outputs.deltas, matches, targets, batch)

    def candidates(self, outputs: DenseOutputs, batch: Batch | PaddedBatch, limit: int) -> Candidates:
        return best_pairs(outputs, self.coder, batch, limit=limit)
