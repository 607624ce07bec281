"""A crop of random size, in pixels of a resized image (Carion et al., DETR, 2020, section A.4)."""

from __future__ import annotations

import torch

from det_core.contracts import Sample
from det_core.data.configured import Configured
from det_core.data.data_config import ResizeConfig
from det_core.data.placement import Crop, drawn
from det_core.data.random_crop import crop
from det_core.data.random_numbers import happens
from det_plugin_timm.config import SizedCropConfig


class SizedCrop(Configured[SizedCropConfig]):
    """Resizes an image to one of the scales and keeps a window of it."""

    takes_compressed_masks = True

    def __init__(self, config: SizedCropConfig) -> None:
        super().__init__(config)
        self.resize = ResizeConfig(scales=config.scales).build()

    def __call__(self, sample: Sample, /) -> Sample:
        if not happens(self.config.probability):
            return sample
        resized = drawn(self.resize(sample))
        return crop(resized, self.draw(resized.size), min_visible=0.0)

    def draw(self, size: tuple[int, int]) -> Crop:
        """The window (x1, y1, x2, y2) of an image of (height, width)."""
        least, most = self.config.sides
        spans = []
        for side in size:
            length = int(torch.randint(min(side, least), min(side, most) + 1, ()))
            start = int(torch.randint(side - length + 1, ()))
            spans.append((start, start + length))
        (y1, y2), (x1, x2) = spans
        return x1, y1, x2, y2
