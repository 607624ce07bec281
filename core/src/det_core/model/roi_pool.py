"""RoIAlign over feature levels.

Letters: L levels, R regions, C channels, h w output size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import det_ops
from det_core.config.base import FeatureSpec
from det_core.model.contracts import RoIPool
from det_core.model.layer_config import RoIAlignConfig


class RoIAlign(RoIPool):
    """Pools each region from one level by its size (Lin et al., FPN, 2017, equation 1).

    level = clamp(floor(log2(sqrt(w * h) / finest_scale + 1e-6)), 0, levels - 1), counted from the finest.
    """

    def __init__(self, config: RoIAlignConfig, inputs: FeatureSpec) -> None:
        super().__init__()
        self.config = config
        self.levels = [inputs.level(stride, "roi_align") for stride in config.strides]
        self.out = config.region_spec(inputs)

    def level_of(self, rois: Tensor) -> Tensor:
        """(R,) int64 index into the pooled levels."""
        side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).clamp(min=0).sqrt()
        level = torch.log2(side / self.config.finest_scale + 1e-6).floor()
        return level.clamp(0, len(self.levels) - 1).long()

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """(R, C, h, w) from L maps and (R, 5) rois (image index, x1, y1, x2, y2) in input pixels."""
        maps = [features[i] for i in self.levels]
        if len(maps) == 1:
            return self._pool(maps[0], rois, self.config.strides[0])
        level = self.level_of(rois)
        members = [(level == i).nonzero().flatten() for i in range(len(maps))]
        # Levels without regions take part too, so that the graph has the same parts on every rank.
        pooled = [self._pool(m, rois[at], s) for m, at, s in zip(maps, members, self.config.strides, strict=True)]
        return torch.cat(pooled)[torch.cat(members).argsort()]

    def _pool(self, features: Tensor, rois: Tensor, stride: int) -> Tensor:
        config = self.config
        return det_ops.roi_align(
            features, rois, self.out.size, 1 / stride, config.sampling, config.aligned, config.mode
        )
