"""SSD's augmentation: torchvision's v2 transforms, with the same draws and pixels (Liu et al., SSD, 2016, section 2.2).

torchvision's crop requires the drawn IoU with at least one object; the published one requires it with all objects.
Zooming out draws no canvas and cropping copies no pixels: the resize that follows reads only what it needs. Letters: n
objects, H W size of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from det_core.compressed_masks import bitmaps_of
from det_core.contracts import Sample
from det_core.data.placement import Crop, cropped, drawn, moved
from det_core.data.random_numbers import happens
from det_core.data.transforms import ImageOnly
from det_core.errors import DataError
from det_core.structures import UNLABELLED
from det_ops import Canvas, ColorStep, adjust_colors, try_crops
from det_plugin_ssd.augment_config import IoUCropConfig, PhotometricDistortConfig, ZoomOutConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PhotometricDistort:
    """torchvision's RandomPhotometricDistort, with the same draws and pixels, in one or two passes over the image."""

    takes_compressed_masks = True

    def __init__(self, config: PhotometricDistortConfig) -> None:
        self.config = config
        self._ranges: tuple[tuple[ColorStep, tuple[float, float]], ...] = (
            ("brightness", config.brightness),
            ("contrast", config.contrast),
            ("saturation", config.saturation),
            ("hue", config.hue),
        )
        self._theirs = v2.RandomPhotometricDistort(
            brightness=config.brightness,
            contrast=config.contrast,
            saturation=config.saturation,
            hue=config.hue,
            p=config.probability,
        )

    def __call__(self, sample: Sample, /) -> Sample:
        if sample.image.dtype != torch.uint8 or len(sample.image) != 3:
            return ImageOnly(self._theirs)(sample)
        steps, order = self.draw()
        if not steps and order is None:
            return sample
        return attrs.evolve(sample, image=adjust_colors(sample.image, steps, order or (0, 1, 2)))

    def draw(self) -> tuple[list[tuple[ColorStep, float]], list[int] | None]:
        """The changes in their order, and the order of channels if it changes; the numbers are drawn as torchvision's.

        Contrast comes second or last.
        """
        config, factors = self.config, []
        for step, ends in self._ranges:
            if happens(config.probability):
                factors.append((step, torch.empty(1).uniform_(*ends).item()))
        if not torch.rand(()).item() < 0.5:  # contrast is last
            factors.sort(key=lambda factor: factor[0] == "contrast")
        return factors, torch.randperm(3).tolist() if happens(config.probability) else None

    def __repr__(self) -> str:
        return f"PhotometricDistort({self.config!r})"


class ZoomOut:
    """torchvision's RandomZoomOut, with the same draws. Masks are filled with 0, semantic maps with the ignored id."""

    def __init__(self, config: ZoomOutConfig) -> None:
        self.config = config
        self._fill = tuple(int(value) for value in config.fill)  # of 8-bit images; cut, as by torchvision

    def __call__(self, sample: Sample, /) -> Sample:
        return drawn(self.on_canvas(sample))

    def on_canvas(self, sample: Sample, /) -> Sample:
        """The sample on a canvas that is not drawn yet, if its image is one of 8 bits."""
        if not happens(self.config.probability):
            return sample
        sample = drawn(sample)
        canvas = self.draw(sample.size)
        (height, width), size = sample.size, (canvas.height, canvas.width)
        left, top = canvas.left, canvas.top
        padding = [left, top, canvas.width - left - width, canvas.height - top - height]
        lazy = sample.image.dtype == torch.uint8
        masks, semantic, proposals = bitmaps_of(sample.masks), sample.semantic, sample.proposals
        return attrs.evolve(
            sample,
            image=sample.image if lazy else F.pad_image(sample.image, padding, fill=list(self.config.fill)),
            canvas=canvas if lazy else None,
            boxes=moved(sample.boxes, left, top, size),
            proposals=None if proposals is None else moved(proposals, left, top, size),
            masks=None if masks is None else F.pad_mask(masks, padding, fill=0),
            semantic=None if semantic is None else F.pad_mask(semantic, padding, fill=UNLABELLED),
        )

    def draw(self, size: tuple[int, int]) -> Canvas:
        """A canvas for an image of (height, width), in float32 as by torchvision."""
        (height, width), (least, most) = size, self.config.sides
        ratio = np.float32(least) + torch.rand(1).numpy()[0] * np.float32(most - least)
        new_width, new_height = int(np.float32(width) * ratio), int(np.float32(height) * ratio)
        place = torch.rand(2).numpy()
        left, top = int(np.float32(new_width - width) * place[0]), int(np.float32(new_height - height) * place[1])
        return Canvas(new_height, new_width, top, left, self._fill)

    def __repr__(self) -> str:
        return f"ZoomOut({self.config!r})"


class IoUCrop:
    """torchvision's RandomIoUCrop, with the same draws and crops.

    Crops and overlaps are computed in float32, as by torchvision. Images without annotations, or too small to crop, are
    returned unchanged.
    """

    def __init__(self, config: IoUCropConfig) -> None:
        self.config = config

    def __call__(self, sample: Sample, /) -> Sample:
        return drawn(self.on_canvas(sample))

    def on_canvas(self, sample: Sample, /) -> Sample:
        """The crop, on what it has of a canvas that is not drawn."""
        if sample.proposals is not None:
            raise DataError("iou_crop does not support proposals; remove it from the transforms")
        too_small = min(sample.size) * self.config.sides[0] < 1
        crop = None if too_small or len(sample.boxes) == 0 else self.draw(sample)
        if crop is None:
            return sample
        x1, y1, x2, y2 = crop
        image, canvas = cropped(sample.image, sample.canvas, crop)
        boxes = moved(sample.boxes, -x1, -y1, (y2 - y1, x2 - x1))
        boxes.numpy()[~_has_centre(sample.boxes, crop)] = 0
        masks, semantic = bitmaps_of(sample.masks), sample.semantic
        return attrs.evolve(
            sample,
            image=image,
            canvas=canvas,
            boxes=boxes,
            masks=None if masks is None else masks[:, y1:y2, x1:x2],
            semantic=None if semantic is None else semantic[y1:y2, x1:x2],
        )

    def draw(self, sample: Sample) -> Crop | None:
        """A crop; None for the whole image."""
        boxes = sample.boxes.float()
        while True:
            overlap = self.config.overlaps[int(torch.randint(low=0, high=len(self.config.overlaps), size=(1,)))]
            if overlap >= 1.0:
                return None
            crop = self._try(boxes, sample.size, overlap)
            if crop is not None:
                return crop

    def _try(self, boxes: Tensor, size: tuple[int, int], overlap: float) -> Crop | None:
        """One round of tries. The random numbers are drawn ahead from a copy of the generator, then those used again.

        torch's generator for the CPU gives the same numbers one by one and all at once.
        """
        numbers = torch.rand(4 * self.config.tries, generator=torch.default_generator.clone_state())
        found = try_crops(boxes, numbers, size, self.config.sides, self.config.aspects, overlap)
        x1, y1, x2, y2, used = found.tolist()
        torch.rand(used)
        return (x1, y1, x2, y2) if x2 else None

    def __repr__(self) -> str:
        return f"IoUCrop({self.config!r})"


def _has_centre(boxes: Tensor, crop: Crop) -> NDArray[np.bool_]:
    """(n,) which boxes (n, 4) have their centres in a crop."""
    ends = boxes.float().numpy()
    centres = np.float32(0.5) * (ends[:, :2] + ends[:, 2:])
    inside = (centres > crop[:2]) & (centres < crop[2:])
    return inside[:, 0] & inside[:, 1]
