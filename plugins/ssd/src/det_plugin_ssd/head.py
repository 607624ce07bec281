"""SSD's head (Liu et al., SSD: Single Shot MultiBox Detector, 2016, sections 2.1 and 2.2).

Letters: N images, L levels, A anchors per cell, K foreground classes, C channels, h w feature size, t anchors of one
level, T anchors of all levels, n candidates of one image. Boxes are xyxy in pixels of the padded network input;
predictions are in original pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import evolve
from torch import Tensor, nn

from det_core.contracts import DenseHead, Losses
from det_core.model.candidates import (
    AnchorCandidates,
    Candidates,
    best_anchors,
    best_pairs,
    best_per_class,
    best_per_class_padded,
)
from det_core.model.dense_detection import (
    DenseOutputs,
    dense_box_loss,
    dense_outputs,
    match_anchors,
    sample_all_images,
)
from det_core.model.layers import init_convs, xavier_init
from det_core.model.padded_detection import suppress_padded
from det_core.model.postprocess import suppress
from det_core.padded import PaddedBatch, PaddedDetections
from det_core.specs import FeatureSpec
from det_core.structures import Batch, Detections, Targets, full_precision
from det_plugin_ssd.config import SSDHeadConfig
from det_plugin_ssd.separable import SeparablePrediction, small_init


class SSDHead(DenseHead[DenseOutputs]):
    """Per level one 3x3 convolution to K+1 class scores, background last, and one to boxes.

    In SSDLite each of these is separable (Sandler et al., MobileNetV2, 2018, section 6.2).
    """

    compiles = True

    def __init__(self, config: SSDHeadConfig, features: FeatureSpec, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.strides = features.strides
        counts = config.anchors.anchors_per_level(len(features.strides))
        pairs = list(zip(features.channels, counts, strict=True))
        self.scores = nn.ModuleList(self._layer(c, a * (num_classes + 1)) for c, a in pairs)
        self.deltas = nn.ModuleList(self._layer(c, a * 4) for c, a in pairs)
        init_convs(self, small_init if config.separable else xavier_init)
        self.anchors = config.anchors.build(features.strides)
        self.coder = config.coder.build()
        self.assigner = config.assigner.build()
        self.cls_loss = config.cls_loss.build()
        self.box_loss = config.box_loss.build()

    def _layer(self, channels: int, out: int) -> nn.Module:
        if self.config.separable:
            return SeparablePrediction(channels, out, self.config.norm)
        return nn.Conv2d(channels, out, 3, padding=1)

    def class_dependent(self) -> tuple[str, ...]:
        last = ".predict" if self.config.separable else ""
        return tuple(f"scores.{number}{last}" for number in range(len(self.scores)))

    def forward(self, features: Sequence[Tensor]) -> DenseOutputs:
        """L maps (N, C, h, w) to scores (N, t, K+1) and deltas (N, t, 4) per level, one row per anchor."""
        scores = [layer(x) for layer, x in zip(self.scores, features, strict=True)]
        deltas = [layer(x) for layer, x in zip(self.deltas, features, strict=True)]
        return dense_outputs(scores, deltas, self.num_classes + 1, self.anchors)

    def losses(self, outputs: DenseOutputs, targets: Sequence[Targets], batch: Batch) -> Losses:
        """`ssd_cls` of positive and the hardest negative anchors, `ssd_box`; normalised by the positive anchors."""
        matches = match_anchors(outputs.anchors, self.strides, self.assigner, targets, batch)
        chosen = sample_all_images(matches.assignments)
        count = float(sum(len(c.positive) for c in chosen))
        scores, deltas = torch.cat(outputs.scores, 1), torch.cat(outputs.deltas, 1)
        parts, labels = [], []
        for row, c, target in zip(scores, chosen, targets, strict=True):
            hard = self._hardest(row[c.negative], int(self.config.negatives * len(c.positive)))
            parts += [row[c.positive], row[c.negative[hard]]]
            labels += [target.labels[c.objects], torch.full_like(hard, self.num_classes)]
        return {
            "ssd_cls": self.cls_loss(torch.cat(parts), torch.cat(labels), count),
            "ssd_box": dense_box_loss(self.box_loss, self.coder, matches.anchors, list(deltas), chosen, targets, count),
        }

    @torch.no_grad()
    def _hardest(self, logits: Tensor, count: int) -> Tensor:
        """Indices of the `count` negative anchors (q, K+1) of one image with the lowest background scores."""
        background = full_precision(logits).log_softmax(-1)[:, -1]
        return background.topk(min(count, len(background)), largest=False).indices

    @torch.no_grad()
    def predict(self, outputs: DenseOutputs, batch: Batch) -> list[Detections]:
        """Softmax scores, the best of each level or class above the score threshold, then NMS within each class."""
        config, outputs = self.config, _probabilities(outputs)
        if config.candidates == "level" or config.before_nms is None:
            return suppress(self._candidates(outputs, batch).pairs(), batch.infos, config)
        pairs = best_per_class(outputs, self.coder, batch, limit=config.before_nms, above=config.score_threshold)
        if config.min_size >= 0:
            pairs = pairs.only(pairs.larger_than(config.min_size))
        return suppress(pairs, batch.infos, config)

    @torch.no_grad()
    def predict_padded(self, outputs: DenseOutputs, batch: PaddedBatch) -> PaddedDetections:
        """As `predict`, in tensors of fixed size."""
        config, outputs = self.config, _probabilities(outputs)
        if config.candidates == "level" or config.before_nms is None:
            return suppress_padded(self._candidates(outputs, batch), batch, config)
        best = best_per_class_padded(outputs, self.coder, batch, limit=config.before_nms, above=config.score_threshold)
        return suppress_padded(best.only(best.larger_than(config.min_size)), batch, config)

    def _candidates(self, outputs: DenseOutputs, batch: Batch | PaddedBatch) -> Candidates | AnchorCandidates:
        """The best of each level, or all, that score high enough and are large enough."""
        limit = self.config.before_nms
        if limit is None:
            best: Candidates | AnchorCandidates = best_anchors(outputs, self.coder, batch, limit=None)
        else:
            best = best_pairs(outputs, self.coder, batch, limit=limit)
        return best.only((best.scores > self.config.score_threshold) & best.larger_than(self.config.min_size))


def _probabilities(outputs: DenseOutputs) -> DenseOutputs:
    """The outputs with softmax scores of the foreground classes in place of logits."""
    return evolve(outputs, scores=[full_precision(x).softmax(-1)[..., :-1] for x in outputs.scores])
