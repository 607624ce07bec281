"""Crops of random size. Letters: H W size of the image."""

from __future__ import annotations

import attrs
import torch

from det_core.contracts import Sample
from det_core.data.augmentation_config import RandomCropConfig
from det_core.data.configured import Configured
from det_core.data.objects_in_window import objects_in, with_objects
from det_core.data.placement import Crop, moved
from det_core.data.random_numbers import happens


class RandomCrop(Configured[RandomCropConfig]):
    """Keeps a part of the image; it copies no pixels."""

    takes_compressed_masks = True

    def __call__(self, sample: Sample, /) -> Sample:
        if not happens(self.config.probability):
            return sample
        return crop(sample, self.draw(sample.size), self.config.min_visible)

    def draw(self, size: tuple[int, int]) -> Crop:
        """The part (x1, y1, x2, y2) of an image of (height, width) that is kept, at least a pixel."""
        least, most = self.config.sides
        spans = []
        for side in size:
            part = float(least + torch.rand(1) * (most - least))
            length = min(max(round(side * part), 1), side)
            start = int(torch.randint(side - length + 1, ()))
            spans.append((start, start + length))
        (y1, y2), (x1, x2) = spans
        return x1, y1, x2, y2


def crop(sample: Sample, window: Crop, min_visible: float) -> Sample:
    """The part (x1, y1, x2, y2) of a sample; see `objects_in`."""
    x1, y1, x2, y2 = window
    size = y2 - y1, x2 - x1
    part = attrs.evolve(
        sample,
        image=sample.image[:, y1:y2, x1:x2],
        semantic=None if sample.semantic is None else sample.semantic[y1:y2, x1:x2],
        proposals=None if sample.proposals is None else moved(sample.proposals, -x1, -y1, size),
    )
    return with_objects(part, [(sample, objects_in(sample, window, (-x1, -y1), min_visible))], size)
