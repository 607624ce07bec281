"""Targets and loss of anchor locations (Wang et al., Guided Anchoring, 2019, section 3.2).

Letters: N images, L levels, M objects of one image, h w feature size, T cells of all levels. Boxes are xyxy in pixels
of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from det_core.boxes.device_copies import send
from det_core.structures import LossTerm, full_precision
from det_plugin_guided_anchoring.config import GuidedAnchorsConfig

NEGATIVE, IGNORED, CENTRE = 0, 1, 2


def target_levels(boxes: Tensor, levels: int, smallest: float) -> Tensor:
    """(M,) int64: for each box (M, 4) the level whose squares are nearest in size.

    smallest: the side of the finest level's squares in pixels; it doubles from level to level.
    """
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    return (side / smallest).log2().add(0.5).floor().clamp(0, levels - 1).long()


def regions(boxes: Tensor, ratio: float, stride: int, size: tuple[int, int]) -> Tensor:
    """(M, 4) int64: the cells x1 y1 x2 y2 (inclusive) of the centre of each box, `ratio` of its sides.

    They are clipped to the map of `size` (h, w), so that every object has at least one cell.
    """
    return level_regions(boxes, ratio, [stride], [size])[0]


def level_regions(boxes: Tensor, ratio: float, strides: Sequence[int], sizes: Sequence[tuple[int, int]]) -> Tensor:
    """(L, M, 4) int64: `regions` of each level."""
    last = boxes.new_tensor([[width - 1, height - 1] * 2 for height, width in sizes])[:, None]
    edge = (1 - ratio) / 2
    cells = boxes / boxes.new_tensor(strides)[:, None, None]
    low, high = cells[..., :2], cells[..., 2:]
    corners = torch.cat([(1 - edge) * low + edge * high, edge * low + (1 - edge) * high], -1).round()
    return corners.clamp(min=0).minimum(last).long()


class LocationLoss(nn.Module):
    """Focal loss of the location map. Cells around the centres of objects are positive."""

    def __init__(self, config: GuidedAnchorsConfig, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.config, self.strides = config, strides
        self.loss = config.location_loss.build()

    def targets(self, boxes: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """(T,) uint8: NEGATIVE, IGNORED or CENTRE for every cell of levels of sizes (h, w); boxes (M, 4).

        On its own level, a later object overrides earlier ones. On neighbouring levels, its cells are ignored unless
        another object has set them. Computed on the CPU, where many small writes are cheapest.
        """
        config = self.config
        maps = [np.full(size, NEGATIVE, dtype=np.uint8) for size in sizes]
        count = len(sizes)
        corners = boxes
        if config.anchor_rule == "mmdet1":  # the first and the last pixel, in cells
            corners = torch.cat([boxes[:, :2], boxes[:, 2:] - 1], 1)
        levels = np.asarray(target_levels(boxes, count, config.base_scale * self.strides[0])).tolist()
        around, centre = (
            np.asarray(level_regions(corners, ratio, self.strides, sizes)).tolist()
            for ratio in (config.ignore_ratio, config.centre_ratio)
        )
        for number, own in enumerate(levels):
            for level in (own - 1, own + 1):
                if 0 <= level < count:
                    fill(maps[level], around[level][number], IGNORED)
        for number, own in enumerate(levels):
            fill(maps[own], around[own][number], IGNORED)
            fill(maps[own], centre[own][number], CENTRE)
        return torch.from_numpy(np.concatenate([x.ravel() for x in maps]))

    def forward(
        self, locations: Sequence[Tensor], boxes: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> LossTerm:
        """The loss of L logits (N, h * w) against each image's objects (M, 4), over cells / `location_cells`."""
        config = self.config
        logits = full_precision(torch.cat(list(locations), 1))
        on_host = torch.from_numpy(torch.cat(list(boxes)).numpy(force=True)).split([len(b) for b in boxes])
        kinds = send(torch.stack([self.targets(b, sizes) for b in on_host]), logits.device)
        values = torch.tensor([config.negative_weight, 0.0, 1.0], dtype=logits.dtype)
        weights = send(values, logits.device)[kinds.long()]
        positive = (kinds == CENTRE) == (config.location_labels == "centre")
        background = (~positive).long()  # class 0 is the only class of the focal loss
        each = self.loss.elementwise(logits.flatten()[:, None], background.flatten())[:, 0]
        return LossTerm(self.loss.weight * (each * weights.flatten()).sum(), logits.numel() / config.location_cells)


def fill(cells: NDArray[np.uint8], region: Sequence[int], value: int) -> None:
    """Write a value into a region x1 y1 x2 y2 (inclusive) of a map (h, w)."""
    x1, y1, x2, y2 = region
    cells[y1 : y2 + 1, x1 : x2 + 1] = value
