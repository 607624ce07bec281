"""RetinaNet's head (Lin et al., Focal Loss for Dense Object Detection, 2017, section 4).

Letters: N images, L levels, A anchors per cell, K foreground classes, C channels, h w feature size, t anchors of one
level, T anchors of all levels. Boxes are xyxy in pixels of the padded network input; predictions are in original
pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from attrs import evolve
from torch import Tensor, nn

from det_core.contracts import DenseHead, Losses
from det_core.model.candidates import AnchorCandidates, Candidates, best_anchors, best_pairs
from det_core.model.dense_detection import DenseOutputs, dense_losses, dense_outputs, match_anchors
from det_core.model.layers import normal_init, prior_bias, tower
from det_core.model.padded_detection import suppress_padded
from det_core.model.postprocess import boxes_to_original, suppress
from det_core.model.running_count import RunningLossCount
from det_core.padded import PaddedBatch, PaddedDetections
from det_core.specs import FeatureSpec
from det_core.structures import Batch, Detections, Targets
from det_plugin_retinanet.config import RetinaNetHeadConfig


class RetinaNetHead(DenseHead[DenseOutputs]):
    """A tower of convolutions for classes and one for boxes, shared by all levels."""

    compiles = True

    def __init__(self, config: RetinaNetHeadConfig, features: FeatureSpec, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.strides = features.strides
        channels = features.same_channels("retinanet")
        per_cell = config.anchors.anchors_per_cell()
        towers = [
            tower(channels, config.channels, config.num_convs, conv=config.conv, norm=config.norm) for _ in range(2)
        ]
        self.cls_tower, self.box_tower = towers
        width = config.channels if config.num_convs else channels
        self.scores = nn.Conv2d(width, per_cell * num_classes, 3, padding=1)
        self.deltas = nn.Conv2d(width, per_cell * 4, 3, padding=1)
        for module in (*self.cls_tower.modules(), *self.box_tower.modules(), self.deltas):
            if isinstance(module, nn.Conv2d):
                normal_init(module, 0.01)
        normal_init(self.scores, 0.01, bias=prior_bias(config.prior))
        self.anchors = config.anchors.build(features.strides)
        self.coder = config.coder.build()
        self.assigner = config.assigner.build()
        self.cls_loss = config.cls_loss.build()
        self.box_loss = config.box_loss.build()
        self.running = RunningLossCount() if config.normaliser == "running_mean" else None

    def class_dependent(self) -> tuple[str, ...]:
        return ("scores",)

    def forward(self, features: Sequence[Tensor]) -> DenseOutputs:
        """L maps (N, C, h, w) to scores (N, t, K) and deltas (N, t, 4) per level, one row per anchor."""
        scores = [self.scores(self.cls_tower(x)) for x in features]
        deltas = [self.deltas(self.box_tower(x)) for x in features]
        return dense_outputs(scores, deltas, self.num_classes, self.anchors)

    def losses(self, outputs: DenseOutputs, targets: Sequence[Targets], batch: Batch) -> Losses:
        """`retina_cls` of all anchors and `retina_box` of positive ones, normalised by the number of the latter or its
        running mean.
        """
        matches = match_anchors(outputs.anchors, self.strides, self.assigner, targets, batch)
        terms = dense_losses(
            outputs.scores,
            outputs.deltas,
            matches,
            targets,
            num_classes=self.num_classes,
            cls_loss=self.cls_loss,
            box_loss=self.box_loss,
            coder=self.coder,
            count_of=self.running,
        )
        return {f"retina_{name}": term for name, term in terms.items()}

    @torch.no_grad()
    def predict(self, outputs: DenseOutputs, batch: Batch) -> list[Detections]:
        """Per level the best (anchor, class) pairs above the score threshold, then NMS within each class."""
        best = self._candidates(outputs, batch)
        original = self.config.clip == "original"
        if original:
            there = boxes_to_original(best.boxes, batch.infos)
            sizes = [info.original_size for info in batch.infos]
            best = evolve(best, boxes=self.coder.clip_batch(there, sizes))
        return suppress(best.pairs(), batch.infos, self.config, original=original)

    @torch.no_grad()
    def predict_padded(self, outputs: DenseOutputs, batch: PaddedBatch) -> PaddedDetections:
        """As `predict`, in tensors of fixed size."""
        best = self._candidates(outputs, batch)
        original = partial(self.coder.clip_images, sizes=batch.original_sizes)
        return suppress_padded(best, batch, self.config, original if self.config.clip == "original" else None)

    def _candidates(self, outputs: DenseOutputs, batch: Batch | PaddedBatch) -> Candidates | AnchorCandidates:
        """Those that score high enough and are large enough, with probabilities."""
        config, limit = self.config, self.config.before_nms
        best: Candidates | AnchorCandidates
        if config.candidates == "anchor":
            best = best_anchors(outputs, self.coder, batch, limit=limit)
        elif limit is None:
            best = best_anchors(outputs, self.coder, batch, limit=None, clipped=config.clip == "before")
        else:
            best = best_pairs(outputs, self.coder, batch, limit=limit, clipped=config.clip == "before")
        best = evolve(best, scores=best.scores.sigmoid())
        levels = best.levels[:, None] if isinstance(best, AnchorCandidates) else best.levels
        return best.only(self._high(best.scores, levels) & best.larger_than(config.min_size))

    def _high(self, scores: Tensor, levels: Tensor) -> Tensor:
        """Which scores (N, n, ...) are above the threshold that candidates of their levels have."""
        high = scores > self.config.score_threshold
        if self.config.coarsest == "all" and self.config.candidates == "pair":
            high |= levels == len(self.strides) - 1
        return high
