"""Guided anchors: from predicted shapes to boxes, which of them train, and what the prediction learns from.

Letters: N images, L levels, A approximate anchors of a cell, t cells of one level, T cells of all levels, n cells that
are kept. Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.nn import functional as F

from det_core.contracts import Assigner, LevelAnchors
from det_core.model.dense_detection import AnchorMatches, DenseOutputs, assign_usable, within_border
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
    """What both heads do with predicted anchors. It has no weights."""

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

        As on a grid they are float32 whatever the network's precision: assignments hang on it.
        """
        return self.coder.decode(squares, F.pad(shapes.detach().float(), (2, 0)))

    def match(
        self,
        outputs: GuidedOutputs,
        assigner: Assigner,
        targets: Sequence[Targets],
        batch: Batch,
    ) -> GuidedMatches:
        """What each image's anchors stand for, and the losses of locations and shapes.

        Raises:
            ValueError: for outputs that were computed at some cells only.
        """
        if outputs.kept is not None:
            raise ValueError(
                "these outputs hold scores only where anchors are predicted, as a head gives them in evaluation mode, "
                "but losses look at every cell; call train() on the detector before its forward"
            )
        squares = torch.cat([level.boxes for level in outputs.anchors])
        shapes = torch.cat(outputs.shapes, 1)
        approximate = self.approximate_anchors(outputs.sizes, squares.device)
        usable = self.usable_cells(outputs.anchors, approximate, batch)
        anchors = [self.decode(squares, row) for row in shapes]
        assignments = [
            assign_usable(assigner, a, t.boxes, rows) for a, rows, t in zip(anchors, usable, targets, strict=True)
        ]
        return GuidedMatches(
            matches=AnchorMatches(anchors, assignments),
            shape=self.shape_loss(shapes, squares, approximate, usable, targets, batch),
            location=self.location_loss(outputs.locations, [t.boxes for t in targets], outputs.sizes),
        )

    def approximate_anchors(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        """(T, A, 4): the approximate anchors of every cell."""
        boxes = torch.cat([level.boxes for level in self.approximate(sizes, device)])
        return boxes.view(-1, self.config.approximate().anchors_per_cell(), 4)

    def usable_cells(self, levels: Sequence[LevelAnchors], approximate: Tensor, batch: Batch) -> list[Tensor]:
        """Of each image (T,) bool: the cell is in the padded batch, and one of its anchors not too far outside."""
        rows = [level.valid(batch.padded_size, stride) for level, stride in zip(levels, self.strides, strict=True)]
        valid, border = torch.cat(rows), self.config.allowed_border
        return [
            valid & within_border(approximate.flatten(0, 1), info, border).view(approximate.shape[:2]).any(1)
            for info in batch.infos
        ]

    def of_image(self, outputs: GuidedOutputs, row: int) -> DenseOutputs:
        """The cells of one image that have anchors: scores (1, n, K), deltas (1, n, 4) and the anchors, by level."""
        scores, deltas, anchors = [], [], []
        for number, squares in enumerate(outputs.anchors):
            kept = slice(None) if outputs.kept is None else outputs.kept[number][row]
            scores.append(outputs.scores[number][row][kept][None])
            deltas.append(outputs.deltas[number][row][kept][None])
            boxes = self.decode(squares.boxes[kept], outputs.shapes[number][row][kept])
            anchors.append(LevelAnchors(boxes, squares.cells[kept]))
        return DenseOutputs(scores, deltas, anchors)
