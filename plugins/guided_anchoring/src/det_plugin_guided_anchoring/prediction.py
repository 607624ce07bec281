"""The predictions of a head with guided anchors at every cell (Wang et al., Guided Anchoring, 2019, section 3).

Letters: N images, L levels, C channels, K classes (or 1), h w feature size, t cells of one level (h * w), G groups of
channels. One anchor per cell. Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor, nn

import det_ops
from det_core.contracts import AnchorGenerator, LevelAnchors
from det_core.model.layers import normal_init, prior_bias
from det_core.structures import full_precision


@frozen(eq=False)
class GuidedOutputs:
    """Per level, in the order of the map's cells (row, column).

    locations: (N, t) logits that the cell has an anchor. shapes: (N, t, 2), dw and dh of the anchor relative to the
    cell's square. scores: (N, t, K) logits. deltas: (N, t, 4) relative to the anchor. kept: (N, t) bool, the cells for
    which scores and deltas were computed, or None for all (in training). anchors: the squares. sizes: (h, w).
    """

    locations: list[Tensor]
    shapes: list[Tensor]
    scores: list[Tensor]
    deltas: list[Tensor]
    kept: list[Tensor] | None
    anchors: list[LevelAnchors]
    sizes: list[tuple[int, int]]


class AnchorPrediction(nn.Module):
    """1x1 convolutions that predict the locations and shapes of anchors (sections 3.2 and 3.3)."""

    def __init__(self, channels: int, prior: float) -> None:
        super().__init__()
        self.location = nn.Conv2d(channels, 1, 1)
        self.shape = nn.Conv2d(channels, 2, 1)
        normal_init(self.location, 0.01, bias=prior_bias(prior))
        normal_init(self.shape, 0.01)

    def forward(self, located: Tensor, shaped: Tensor) -> tuple[Tensor, Tensor]:
        """Two feature maps (N, C, h, w) to location logits (N, 1, h, w) and shapes (N, 2, h, w)."""
        return self.location(located), self.shape(shaped)


class FeatureAdaption(nn.Module):
    """A 3x3 deformable convolution that adapts features to the anchors' shapes (section 3.4).

    Its offsets are predicted from the shapes, without gradient to them.
    """

    def __init__(self, channels: int, offset_groups: int) -> None:
        super().__init__()
        self.offset_groups = offset_groups
        self.offset = nn.Conv2d(2, offset_groups * 18, 1, bias=False)
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3).normal_(std=0.01))
        normal_init(self.offset, 0.1)

    def forward(self, x: Tensor, shape: Tensor) -> Tensor:
        """Features (N, C, h, w) and shapes (N, 2, h, w) to features (N, C, h, w)."""
        offset = self.offset(shape.detach())
        return det_ops.deform_conv2d(x, offset, self.weight, padding=1, offset_groups=self.offset_groups).relu_()


def kept_cells(location: Tensor, threshold: float) -> Tensor:
    """(N, h, w) bool: the cells with an anchor, from location logits (N, 1, h, w)."""
    return full_precision(location)[:, 0].sigmoid() >= threshold


def conv_at(conv: nn.Conv2d, x: Tensor, kept: Tensor | None) -> Tensor:
    """conv(x), (N, O, h, w). With a mask `kept` (N, h, w): computed only there, without gradient, and 0 elsewhere."""
    if kept is None:
        return conv(x)
    height, width = conv.weight.shape[-2:]
    return det_ops.masked_conv2d(x, kept, conv.weight, conv.bias, padding=((height - 1) // 2, (width - 1) // 2))


def per_cell(maps: Tensor) -> Tensor:
    """(N, O, h, w) to (N, t, O)."""
    return maps.flatten(2).transpose(1, 2)


@frozen(eq=False)
class LevelMaps:
    """One level: location (N, 1, h, w), shape (N, 2, h, w), scores (N, K, h, w), deltas (N, 4, h, w), kept."""

    location: Tensor
    shape: Tensor
    scores: Tensor
    deltas: Tensor
    kept: Tensor | None


def guided_outputs(levels: Sequence[LevelMaps], squares: AnchorGenerator) -> GuidedOutputs:
    """Outputs from the maps of all levels, one row per cell, with the squares of the cells."""
    sizes = [(level.shape.shape[-2], level.shape.shape[-1]) for level in levels]
    kept = [level.kept.flatten(1) for level in levels if level.kept is not None]
    return GuidedOutputs(
        locations=[level.location.flatten(1) for level in levels],
        shapes=[per_cell(level.shape) for level in levels],
        scores=[per_cell(level.scores) for level in levels],
        deltas=[per_cell(level.deltas) for level in levels],
        kept=kept or None,
        anchors=squares(sizes, levels[0].shape.device),
        sizes=sizes,
    )
