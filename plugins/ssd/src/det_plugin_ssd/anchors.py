"""SSD's anchors, or prior boxes (Liu et al., SSD, 2016, section 2.2).

Letters: L levels, A anchors per cell, h w feature size. Boxes are xyxy float32 in input pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from det_core.boxes.anchors import KeptAnchors, pixel_anchors, tile
from det_core.contracts import AnchorGenerator, LevelAnchors
from det_plugin_ssd.config import SSDAnchorsConfig


class SSDAnchors(AnchorGenerator):
    """Anchors around the centre of every cell: a small and a large square, then a wide and a tall one per ratio."""

    def __init__(self, config: SSDAnchorsConfig, strides: tuple[int, ...]) -> None:
        self.strides = strides
        config.anchors_per_level(len(strides))
        self._kept = KeptAnchors()
        self.base = [
            self._base(size, after, ratios, config.longest)
            for size, after, ratios in zip(config.sizes[:-1], config.sizes[1:], config.ratios, strict=True)
        ]
        self.offset = 0.5
        self.spacing_from_image = config.spacing == "image"
        if config.rule == "mmdet1":
            self.offset = 0.0  # from the start of the cell, not from its centre
            sides = [base[:, 2:] - base[:, :2] for base in self.base]
            self.base = [pixel_anchors(x[:, 0], x[:, 1], stride) for x, stride in zip(sides, strides, strict=True)]

    @staticmethod
    def _base(size: float, after: float, ratios: Sequence[float], longest: float | None) -> Tensor:
        between = math.sqrt(size * after)
        sides = [(size, size), (between, between)]
        for ratio in ratios:
            long, short = size * math.sqrt(ratio), size / math.sqrt(ratio)
            sides += [(long, short), (short, long)]
        half = 0.5 * torch.tensor(sides, dtype=torch.float32).clamp(max=math.inf if longest is None else longest)
        return torch.cat([-half, half], 1)

    def __call__(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> list[LevelAnchors]:
        return self._kept.get(sizes, device, self._make)

    def _make(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> list[LevelAnchors]:
        return [
            tile(base.to(device), spacing, size, self.offset)
            for base, spacing, size in zip(self.base, self._spacing(sizes), sizes, strict=True)
        ]

    def _spacing(self, sizes: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
        """Pixels between rows and between columns of each level."""
        if not self.spacing_from_image:
            return [(stride, stride) for stride in self.strides]
        height, width = (side * self.strides[0] for side in sizes[0])
        return [(height / rows, width / columns) for rows, columns in sizes]
