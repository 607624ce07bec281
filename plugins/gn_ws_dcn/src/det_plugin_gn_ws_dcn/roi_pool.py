"""Deformable RoI pooling, a replacement for RoIAlign (Dai et al., Deformable ConvNets, 2017, section 2.2).

Letters: L levels, R regions, C channels, h w output size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import det_ops
from det_core.contracts import RoIPool
from det_core.model.roi_pool import inclusive
from det_core.specs import FeatureSpec
from det_plugin_gn_ws_dcn.config import DeformRoIPoolConfig


class LevelPool(nn.Module):
    """Pools regions from one level: plainly to predict the offset of each bin, then with the offsets."""

    def __init__(self, config: DeformRoIPoolConfig, channels: int, stride: int) -> None:
        super().__init__()
        self.config, self.scale = config, 1 / stride
        bins, width = config.size * config.size, config.fc_channels
        self.offset_fc = nn.Sequential(
            nn.Linear(bins * channels, width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
            nn.ReLU(inplace=True),
            nn.Linear(width, bins * 2),
        )
        last = [self.offset_fc[-1]]
        if config.modulated:
            self.mask_fc = nn.Sequential(
                nn.Linear(bins * channels, width), nn.ReLU(inplace=True), nn.Linear(width, bins), nn.Sigmoid()
            )
            last.append(self.mask_fc[2])
        for layer in last:  # initially no offsets and equal weights
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """A map (N, C, H, W) and rois (R, 5) to (R, C, h, w)."""
        plain = self._pool(features, rois, None).flatten(1)
        size = self.config.size
        offset = self.offset_fc(plain).view(-1, 2, size, size)
        pooled = self._pool(features, rois, offset)
        if self.config.modulated:
            pooled = pooled * self.mask_fc(plain).view(-1, 1, size, size)
        return pooled

    def _pool(self, features: Tensor, rois: Tensor, offset: Tensor | None) -> Tensor:
        config, size = self.config, (self.config.size, self.config.size)
        if config.alignment == "v1":
            own, channels = inclusive(rois), features.shape[1]
            return det_ops.deform_psroi_pool(features, own, offset, size, self.scale, channels, gamma=config.gamma)
        return det_ops.deform_roi_pool(features, rois, offset, size, self.scale, config.sampling, config.gamma)


class DeformRoIPool(RoIPool):
    """Pools each region from one level, chosen by its size as in RoIAlign. Each level has its own layers."""

    def __init__(self, config: DeformRoIPoolConfig, inputs: FeatureSpec) -> None:
        super().__init__()
        self.config = config
        self.levels = [inputs.level(stride, "deform_roi_pool") for stride in config.strides]
        self.out = config.region_spec(inputs)
        self.pools = nn.ModuleList(LevelPool(config, self.out.channels, stride) for stride in config.strides)

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """(R, C, h, w) from L maps and (R, 5) rois (image index, x1, y1, x2, y2) in input pixels."""
        level = det_ops.roi_levels(rois, len(self.levels), self.config.finest_scale)
        # Levels without regions run too, so that all layers have a gradient on every rank.
        order = [(level == number).nonzero().flatten() for number in range(len(self.levels))]
        pooled = [pool(features[i], rois[rows]) for pool, i, rows in zip(self.pools, self.levels, order, strict=True)]
        rows = torch.cat(order)
        return torch.cat(pooled)[rows.argsort()]
