"""RoIAlign over feature levels.

Letters: L levels, R regions, C channels, h w output size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import det_ops
from det_core.contracts import RoIPool
from det_core.model.layer_config import RoIAlignConfig
from det_core.specs import FeatureSpec


class RoIAlign(RoIPool):
    """Pools each region from one level, selected by its size (Lin et al., FPN, 2017, equation 1).

    level = clamp(floor(log2(sqrt(w * h) / finest_scale + 1e-6)), 0, levels - 1), where 0 is the finest; see
    `det_ops.roi_levels` for other rules.
    """

    def __init__(self, config: RoIAlignConfig, inputs: FeatureSpec) -> None:
        super().__init__()
        self.config = config
        self.levels = [inputs.level(stride, "roi_align") for stride in config.strides]
        self.out = config.region_spec(inputs)

    def level_of(self, rois: Tensor) -> Tensor:
        """(R,) int64 index into the pooled levels."""
        return det_ops.roi_levels(rois, len(self.levels), self.config.finest_scale, self.config.level_rule)

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """(R, C, h, w) from L maps and (R, 5) rois (image index, x1, y1, x2, y2) in input pixels."""
        config, levels = self.config, self.level_of(rois)
        if config.alignment in ("v1", "detectron"):
            rois = inclusive(rois)
        alignment = "unaligned" if config.alignment == "detectron" else config.alignment
        return det_ops.multi_level_roi_align(
            [features[i] for i in self.levels],
            rois,
            levels,
            self.out.size,
            [1 / stride for stride in config.strides],
            config.sampling,
            alignment,
            config.mode,
        )


def inclusive(rois: Tensor) -> Tensor:
    """Rois (R, 5) whose corners are their first and last pixels, as the operators of 2017 to 2019 take them."""
    return torch.cat([rois[:, :3], rois[:, 3:] - 1], 1)
