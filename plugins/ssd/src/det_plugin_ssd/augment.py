"""SSD's augmentation with torchvision's v2 transforms (Liu et al., SSD, 2016, section 2.2).

torchvision's crop requires the drawn IoU with at least one object; the published one requires it with all objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from det_core.contracts import Sample, Transform
from det_core.data.transforms import V2, ImageOnly, from_tv_tensors, to_tv_tensors
from det_core.errors import DataError
from det_plugin_ssd.augment_config import IoUCropConfig, PhotometricDistortConfig, ZoomOutConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Column = NDArray[np.float32]

Crop = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels
HALF = np.float32(0.5)


def photometric_distort(config: PhotometricDistortConfig) -> Transform:
    """torchvision's RandomPhotometricDistort."""
    return ImageOnly(
        v2.RandomPhotometricDistort(
            brightness=config.brightness,
            contrast=config.contrast,
            saturation=config.saturation,
            hue=config.hue,
            p=config.probability,
        )
    )


def zoom_out(config: ZoomOutConfig) -> Transform:
    """torchvision's RandomZoomOut. Masks are filled with 0, semantic maps with the ignored id."""
    fill = {tv_tensors.Image: list(config.fill), "others": 0}
    return V2(v2.RandomZoomOut(fill=fill, side_range=config.sides, p=config.probability))


class IoUCrop:
    """torchvision's RandomIoUCrop, with the same draws and crops; its tries take numpy's time instead of torch's.

    Crops and overlaps are computed in float32, as by torchvision. Images without annotations, or too small to crop, are
    returned unchanged.
    """

    def __init__(self, config: IoUCropConfig) -> None:
        self.config = config

    def __call__(self, sample: Sample, /) -> Sample:
        if sample.proposals is not None:
            raise DataError("iou_crop does not support proposals; remove it from the transforms")
        too_small = min(sample.size) * self.config.sides[0] < 1
        found = None if too_small or len(sample.boxes) == 0 else self.draw(sample)
        if found is None:
            return sample
        (left, top, right, bottom), inside = found
        parts = to_tv_tensors(sample)
        for name, part in parts.items():
            if isinstance(part, tv_tensors.TVTensor):
                parts[name] = F.crop(part, top, left, bottom - top, right - left)
        parts["boxes"][~inside] = 0
        return from_tv_tensors(sample, parts)

    def draw(self, sample: Sample) -> tuple[Crop, Tensor] | None:
        """A crop, and which boxes (n,) have their centres in it; None for the whole image."""
        x1, y1, x2, y2 = boxes = tuple(sample.boxes.float().numpy().T)
        centre_x, centre_y = HALF * (x1 + x2), HALF * (y1 + y2)
        while True:
            overlap = self.config.overlaps[int(torch.randint(low=0, high=len(self.config.overlaps), size=(1,)))]
            if overlap >= 1.0:
                return None
            for _ in range(self.config.tries):
                crop = self._draw_crop(*sample.size)
                if crop is None:
                    continue
                left, top, right, bottom = crop
                inside = (left < centre_x) & (centre_x < right) & (top < centre_y) & (centre_y < bottom)
                if inside.any() and _overlaps(boxes, crop)[inside].max() >= np.float32(overlap):
                    return crop, torch.from_numpy(inside)

    def _draw_crop(self, height: int, width: int) -> Crop | None:
        """A crop, or None for one of a shape that is not allowed."""
        (least, most), (flattest, tallest) = self.config.sides, self.config.aspects
        sides = np.float32(least) + np.float32(most - least) * torch.rand(2).numpy()
        new_width, new_height = int(np.float32(width) * sides[0]), int(np.float32(height) * sides[1])
        if not flattest <= new_width / new_height <= tallest:
            return None
        place = torch.rand(2).numpy()
        left, top = int(np.float32(width - new_width) * place[0]), int(np.float32(height - new_height) * place[1])
        return None if 0 in (new_width, new_height) else (left, top, left + new_width, top + new_height)

    def __repr__(self) -> str:
        return f"IoUCrop({self.config!r})"


def _overlaps(boxes: tuple[Column, ...], crop: Crop) -> Column:
    """(n,) float32 IoU of boxes, as columns x1, y1, x2, y2, with a crop."""
    (x1, y1, x2, y2), (left, top, right, bottom) = boxes, crop
    width = np.maximum(np.minimum(x2, right) - np.maximum(x1, left), 0)
    height = np.maximum(np.minimum(y2, bottom) - np.maximum(y1, top), 0)
    common = width * height
    overlaps: Column = common / ((x2 - x1) * (y2 - y1) + np.float32((right - left) * (bottom - top)) - common)
    return overlaps
