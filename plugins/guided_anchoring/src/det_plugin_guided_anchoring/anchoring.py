"""Guided anchors: decoding of predicted shapes, assignment, and the losses of the prediction.

Letters: N images, L levels, A approximate anchors of a cell, t cells of one level, T cells of all levels, n kept
cells. Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional as F

from det_core.boxes.device_copies import rows_of
from det_core.contracts import Assigner, LevelAnchors
from det_core.model.dense_detection import AnchorMatches, DenseOutputs, assign_images, within_border
from det_core.structures import Batch, LossTerm, Targets
from det_plugin_guided_anchoring.config import GuidedAnchorsConfig
from det_plugin_guided_anchoring.location import LocationLoss
from det_plugin_guided_anchoring.prediction import GuidedOutputs
from det_plugin_guided_anchoring.shape import ShapeLoss


@frozen(eq=False)
class GuidedMatches:
    """The guided anchors (T, 4) of each image with their assignments, and the losses of shapes and locations."""

    matches: AnchorMatches
    shape: LossTerm
    location: LossTerm


class GuidedAnchors(nn.Module):
    """The operations on predicted anchors that both heads share. It has no weights."""

    def __init__(self, config: GuidedAnchorsConfig, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.config, self.strides = config, strides
        self.squares = config.squares().build(strides)
        self.approximate = config.approximate().build(strides)
        self.coder = config.coder.build()
        self.location_loss = LocationLoss(config, strides)
        self.shape_loss = ShapeLoss(config, self.coder)

    def decode(self, squares: Tensor, shapes: Tensor) -> Tensor:
        """Anchors (n, 4) float32, without gradient, of squares (n, 4) with shapes (n, 2).

        They are float32 in every precision of the network, like grid anchors, because assignments depend on them.
        """
        return self.coder.decode(squares, F.pad(shapes.detach().float(), (2, 0)))

    def match(
        self,
        outputs: GuidedOutputs,
        assigner: Assigner,
        targets: Sequence[Targets],
        batch: Batch,
    ) -> GuidedMatches:
        """Assign each image's anchors, and compute the losses of locations and shapes.

        Raises:
            ValueError: if the outputs were computed only at cells with an anchor.
        """
        if outputs.kept is not None:
            raise ValueError(
                "the losses require outputs of all cells, but these have only cells with an anchor (evaluation mode); "
                "call train() on the detector before its forward"
            )
        squares = torch.cat([level.boxes for level in outputs.anchors])
        shapes = torch.cat(outputs.shapes, 1)
        approximate = self.approximate_anchors(outputs.sizes, squares.device)
        usable = rows_of(self.usable_cells(outputs.anchors, approximate, batch))
        anchors = [self.decode(squares, row) for row in shapes]
        return GuidedMatches(
            matches=AnchorMatches(anchors, assign_images(assigner, anchors, targets, usable)),
            shape=self.shape_loss(shapes, squares, approximate, usable, targets, batch),
            location=self.location_loss(outputs.locations, [t.boxes for t in targets], outputs.sizes),
        )

    def approximate_anchors(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        """The approximate anchors of every cell, (T, A, 4)."""
        boxes = torch.cat([level.boxes for level in self.approximate(sizes, device)])
        return boxes.view(-1, self.config.approximate().anchors_per_cell(), 4)

    def usable_cells(self, levels: Sequence[LevelAnchors], approximate: Tensor, batch: Batch) -> list[Tensor]:
        """Per image (T,) bool: the cell is inside the padded image, one of its anchors within the allowed border."""
        rows = [level.valid(batch.padded_size, stride) for level, stride in zip(levels, self.strides, strict=True)]
        valid, border = torch.cat(rows), (self.config.allowed_border, self.config.touching)
        return [
            valid & within_border(approximate.flatten(0, 1), info, *border).view(approximate.shape[:2]).any(1)
            for info in batch.infos
        ]

    def of_images(self, outputs: GuidedOutputs) -> DenseOutputs:
        """Per level scores (N, t, K), deltas (N, t, 4) and anchors (N, t, 4) of every cell.

        Cells without an anchor have scores of -inf.
        """
        squares, shapes = torch.cat([level.boxes for level in outputs.anchors]), torch.cat(outputs.shapes, 1)
        everywhere = squares.expand(shapes.shape[0], -1, -1)
        boxes = self.decode(everywhere.flatten(0, 1), shapes.flatten(0, 1)).reshape(everywhere.shape)
        # len() would make constants of these sizes in an exported program.
        levels = boxes.split([level.boxes.shape[0] for level in outputs.anchors], 1)
        scores = outputs.scores
        if outputs.kept is not None:
            pairs = zip(outputs.kept, scores, strict=True)
            scores = [torch.where(kept[..., None], x, -math.inf) for kept, x in pairs]
        anchors = zip(levels, outputs.anchors, strict=True)
        return DenseOutputs(scores, outputs.deltas, [LevelAnchors(own, level.cells) for own, level in anchors])
