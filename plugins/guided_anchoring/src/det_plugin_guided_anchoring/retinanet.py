"""GA-RetinaNet: RetinaNet's head on guided anchors (Wang et al., Guided Anchoring, 2019, section 4.1).

Letters: N images, L levels, K foreground classes, C channels, h w feature size, t cells of one level, T cells of all
levels. One anchor per cell. Boxes are xyxy in pixels of the padded network input; predictions are in original pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import evolve
from torch import Tensor, nn

from det_core.contracts import DenseHead, Losses
from det_core.model.candidates import AnchorCandidates, best_anchors
from det_core.model.dense_detection import dense_losses
from det_core.model.layers import normal_init, prior_bias, tower
from det_core.model.padded_detection import suppress_padded
from det_core.model.postprocess import suppress
from det_core.padded import PaddedBatch, PaddedDetections
from det_core.specs import FeatureSpec
from det_core.structures import Batch, Detections, Targets
from det_plugin_guided_anchoring.anchoring import GuidedAnchors
from det_plugin_guided_anchoring.config import GARetinaNetHeadConfig
from det_plugin_guided_anchoring.prediction import (
    AnchorPrediction,
    FeatureAdaption,
    GuidedOutputs,
    LevelMaps,
    conv_at,
    guided_outputs,
    kept_cells,
)


class GARetinaNetHead(DenseHead[GuidedOutputs]):
    """Two towers: the class tower predicts anchor locations, the box tower shapes. Both are adapted to the shapes.

    In evaluation mode, scores and deltas are computed only at cells with an anchor.
    """

    def __init__(self, config: GARetinaNetHeadConfig, features: FeatureSpec, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes, guided = config, num_classes, config.guided
        channels = features.same_channels("ga_retinanet")
        width = config.channels if config.num_convs else channels
        towers = [
            tower(channels, config.channels, config.num_convs, conv=config.conv, norm=config.norm) for _ in range(2)
        ]
        self.cls_tower, self.box_tower = towers
        self.prediction = AnchorPrediction(width, guided.location_prior)
        self.cls_adaption = FeatureAdaption(width, guided.offset_groups)
        self.box_adaption = FeatureAdaption(width, guided.offset_groups)
        self.scores = nn.Conv2d(width, num_classes, 3, padding=1)
        self.deltas = nn.Conv2d(width, 4, 3, padding=1)
        for module in (*self.cls_tower.modules(), *self.box_tower.modules(), self.deltas):
            if isinstance(module, nn.Conv2d):
                normal_init(module, 0.01)
        normal_init(self.scores, 0.01, bias=prior_bias(config.prior))
        self.guided = GuidedAnchors(guided, features.strides)
        self.coder = config.coder.build()
        self.assigner = config.assigner.build()
        self.cls_loss = config.cls_loss.build()
        self.box_loss = config.box_loss.build()

    def class_dependent(self) -> tuple[str, ...]:
        return ("scores",)

    def forward(self, features: Sequence[Tensor]) -> GuidedOutputs:
        """L maps (N, C, h, w) to an anchor, K scores and four deltas relative to the anchor, for every cell."""
        return guided_outputs([self._level(x) for x in features], self.guided.squares)

    def _level(self, x: Tensor) -> LevelMaps:
        classes, boxes = self.cls_tower(x), self.box_tower(x)
        location, shape = self.prediction(classes, boxes)
        kept = None if self.training else kept_cells(location, self.config.guided.location_threshold)
        scores = conv_at(self.scores, self.cls_adaption(classes, shape), kept)
        return LevelMaps(location, shape, scores, conv_at(self.deltas, self.box_adaption(boxes, shape), kept), kept)

    def losses(self, outputs: GuidedOutputs, targets: Sequence[Targets], batch: Batch) -> Losses:
        """`retina_cls` and `retina_box`, normalised by the number of positive anchors; `retina_shape`, by the number of
        sampled cells; `retina_location`.
        """
        guided = self.guided.match(outputs, self.assigner, targets, batch)
        terms = dense_losses(
            outputs.scores,
            outputs.deltas,
            guided.matches,
            targets,
            num_classes=self.num_classes,
            cls_loss=self.cls_loss,
            box_loss=self.box_loss,
            coder=self.coder,
        )
        terms = {**terms, "shape": guided.shape, "location": guided.location}
        return {f"retina_{name}": term for name, term in terms.items()}

    @torch.no_grad()
    def predict(self, outputs: GuidedOutputs, batch: Batch) -> list[Detections]:
        """Per level the best anchors with all their classes above the score threshold, then NMS within each class."""
        return suppress(self._candidates(outputs, batch).pairs(), batch.infos, self.config)

    @torch.no_grad()
    def predict_padded(self, outputs: GuidedOutputs, batch: PaddedBatch) -> PaddedDetections:
        """As `predict`, in tensors of fixed size."""
        return suppress_padded(self._candidates(outputs, batch), batch, self.config)

    def _candidates(self, outputs: GuidedOutputs, batch: Batch | PaddedBatch) -> AnchorCandidates:
        """Those that score high enough and are large enough, with probabilities."""
        config = self.config
        best = best_anchors(self.guided.of_images(outputs), self.coder, batch, limit=config.before_nms)
        best = evolve(best, scores=best.scores.sigmoid())
        return best.only((best.scores > config.score_threshold) & best.larger_than(config.min_size))
