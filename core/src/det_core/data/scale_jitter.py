"""Scale jitter and crops of a fixed size, with the draws of torchvision's reference transforms for detection.

Letters: n annotations, H W size of an image.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from det_core.compressed_masks import CompressedMasks
from det_core.contracts import Sample
from det_core.data.augmentation_config import FixedSizeCropConfig, ScaleJitterConfig
from det_core.data.configured import Configured
from det_core.data.mask_patches import patches_of
from det_core.data.placement import Crop, cropped, drawn, moved
from det_core.data.transforms import resize
from det_core.structures import UNLABELLED
from det_ops import Canvas


class ScaleJitter(Configured[ScaleJitterConfig]):
    """torchvision's ScaleJitter, with the same draws; a side has at least one pixel."""

    takes_compressed_masks = True

    def __call__(self, sample: Sample, /) -> Sample:
        if self.config.arithmetic == "antialiased":
            sample = drawn(sample)
        return resize(sample, self.draw(sample.size), self.config.arithmetic)

    def on_canvas(self, sample: Sample, /) -> Sample:
        """The same: a canvas is resized with the image, and never drawn."""
        return self(sample)

    def draw(self, size: tuple[int, int]) -> tuple[int, int]:
        """A new (height, width) for an image of `size`, computed in float32 as by torchvision."""
        (height, width), (least, most) = size, self.config.factors
        factor = least + torch.rand(1) * (most - least)
        factor = min(self.config.size[0] / height, self.config.size[1] / width) * factor
        extra = 0.5 if self.config.rounding == "nearest" else 0.0
        return max(int(height * factor + extra), 1), max(int(width * factor + extra), 1)


class FixedSizeCrop(Configured[FixedSizeCropConfig]):
    """torchvision's FixedSizeCrop, with the same draws: one number places the crop along both axes.

    It copies no pixels: an 8-bit image that is padded is placed on a canvas.
    """

    takes_compressed_masks = True

    def __init__(self, config: FixedSizeCropConfig) -> None:
        super().__init__(config)
        self._fill = tuple(int(value) for value in config.fill)  # of 8-bit images; cut, as by torchvision

    def __call__(self, sample: Sample, /) -> Sample:
        return drawn(self.on_canvas(sample))

    def on_canvas(self, sample: Sample, /) -> Sample:
        """The crop, on what it has of a canvas that is not drawn."""
        x1, y1, x2, y2 = crop = self.draw(sample.size)
        size = y2 - y1, x2 - x1
        whole = size == sample.size
        boxes = moved(sample.boxes, -x1, -y1, size)
        masks = sample.masks if whole or sample.masks is None else _crop_masks(sample.masks, crop)
        if not whole and self.config.boxes == "masks" and masks is not None:
            boxes = _boxes_of_cut(sample.boxes, boxes, masks, crop)
        image, canvas = cropped(sample.image, sample.canvas, crop)
        part = attrs.evolve(
            sample,
            image=image,
            canvas=canvas,
            boxes=boxes,
            masks=masks,
            semantic=None if sample.semantic is None else sample.semantic[y1:y2, x1:x2],
            proposals=None if sample.proposals is None else moved(sample.proposals, -x1, -y1, size),
        )
        return part if size == self.config.size else self._pad(part)

    def draw(self, size: tuple[int, int]) -> Crop:
        """The part of an image of (height, width) that is kept."""
        height, width = (min(have, want) for have, want in zip(size, self.config.size, strict=True))
        if (height, width) == size:
            return 0, 0, width, height
        place = torch.rand(1)
        top, left = int((size[0] - height) * place), int((size[1] - width) * place)
        return left, top, left + width, top + height

    def _pad(self, sample: Sample) -> Sample:
        """The sample with right and bottom padding to the configured size."""
        (height, width), (new_height, new_width) = sample.size, self.config.size
        padding = [0, 0, new_width - width, new_height - height]
        image, canvas = sample.image, sample.canvas
        if image.dtype == torch.uint8:
            # The image keeps its place on a canvas that it has already, since only the right and bottom grow.
            top, left = (0, 0) if canvas is None else (canvas.top, canvas.left)
            if canvas is not None and canvas.fill != self._fill:
                image, top, left = drawn(sample).image, 0, 0
            canvas = Canvas(new_height, new_width, top, left, self._fill)
        else:
            image = F.pad_image(image, padding, fill=list(self.config.fill))
        masks, semantic = sample.masks, sample.semantic
        return attrs.evolve(
            sample,
            image=image,
            canvas=canvas,
            masks=None if masks is None else _pad_masks(masks, padding),
            semantic=None if semantic is None else F.pad_mask(semantic, padding, fill=UNLABELLED),
        )


def _crop_masks(masks: Tensor | CompressedMasks, crop: Crop) -> Tensor | CompressedMasks:
    x1, y1, x2, y2 = crop
    return masks.cropped(crop) if isinstance(masks, CompressedMasks) else masks[:, y1:y2, x1:x2]


def _pad_masks(masks: Tensor | CompressedMasks, padding: list[int]) -> Tensor | CompressedMasks:
    """Masks with blank pixels added. padding: (left, top, right, bottom), of which only right and bottom are not 0."""
    if isinstance(masks, CompressedMasks):
        return masks.padded(bottom=padding[3], right=padding[2])
    padded: Tensor = F.pad_mask(masks, padding, fill=0)
    return padded


def _boxes_of_cut(before: Tensor, clipped: Tensor, masks: Tensor | CompressedMasks, crop: Crop) -> Tensor:
    """The clipped boxes (n, 4), where the crop cuts them those of what is left of their masks."""
    x1, y1, x2, y2 = crop
    limits = before.new_tensor([x1, y1, x2, y2])
    cut = ((before[:, :2] < limits[:2]) | (before[:, 2:] > limits[2:])).any(dim=1)
    if not bool(cut.any()):
        return clipped
    boxes = clipped.clone()
    boxes[cut] = torch.tensor([patch.box() for patch in patches_of(masks[cut])], dtype=boxes.dtype)
    return boxes
