"""Affine maps of images with their annotations. Letters: n objects, H W size of the image."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from det_core.compressed_masks import bitmaps_of, mask_boxes
from det_core.contracts import Sample
from det_core.data.augmentation_config import AffineConfig
from det_core.data.placement import clipped
from det_core.data.v2_transforms import moved_boxes, rotation
from det_core.structures import UNLABELLED


class Affine:
    """Turns, shifts, scales and shears about the centre."""

    def __init__(self, config: AffineConfig) -> None:
        self.config = config

    def __call__(self, sample: Sample, /) -> Sample:
        if torch.rand(1) >= self.config.probability:
            return sample
        height, width = sample.size
        angle, x, y, shear_x, shear_y = (2 * torch.rand(5) - 1).tolist()
        least, most = self.config.scale
        shift = (round(x * self.config.translate * width), round(y * self.config.translate * height))
        return affine(
            sample,
            angle=angle * self.config.degrees,
            translate=shift,
            scale=float(least + torch.rand(1) * (most - least)),
            shear=(shear_x * self.config.shear, shear_y * self.config.shear),
            fill=self.config.fill,
            min_visible=self.config.min_visible,
        )

    def __repr__(self) -> str:
        return f"Affine({self.config!r})"


def affine(
    sample: Sample,
    *,
    angle: float,
    translate: tuple[int, int],
    scale: float,
    shear: tuple[float, float] = (0.0, 0.0),
    fill: tuple[float, float, float] = (0.0, 0.0, 0.0),
    min_visible: float = 0.0,
) -> Sample:
    """A sample of the same size, turned by `angle` degrees clockwise about its centre, scaled, sheared and shifted.

    Args:
        translate: (x, y) in pixels. shear: (x, y) in degrees. fill: RGB 0..255.
        min_visible: objects of which less than this fraction stays in the image become empty.
    """

    def mapped(maps: Tensor, mode: InterpolationMode, colour: list[float]) -> Tensor:
        moved: Tensor = F.affine_image(
            maps, angle, list(translate), scale, list(shear), interpolation=mode, fill=colour
        )
        return moved

    matrix = rotation(angle, translate, scale, shear, sample.size)
    around = moved_boxes(sample.boxes, matrix)
    boxes = clipped(around, sample.size)
    visible = _areas(boxes) / _areas(around).clamp(min=1e-9)
    masks = bitmaps_of(sample.masks)
    if masks is not None and len(masks):
        before = masks.flatten(1).sum(1, dtype=torch.float64)
        masks = mapped(masks, InterpolationMode.NEAREST, [0.0])
        growth = float(torch.linalg.det(matrix[:, :2]))
        left = masks.flatten(1).sum(1, dtype=torch.float64) / (before * growth).clamp(min=1e-9)
        boxes = torch.where((before > 0)[:, None], mask_boxes(masks).to(boxes.dtype), boxes)
        visible = torch.where(before > 0, left, visible.double())
    boxes = torch.where((visible >= min_visible)[:, None], boxes, 0)  # empty ones are dropped after the transforms
    semantic = sample.semantic
    if semantic is not None:
        semantic = mapped(semantic[None], InterpolationMode.NEAREST, [float(UNLABELLED)])[0]
    proposals = None if sample.proposals is None else clipped(moved_boxes(sample.proposals, matrix), sample.size)
    return attrs.evolve(
        sample,
        image=mapped(sample.image, InterpolationMode.BILINEAR, list(fill)),
        boxes=boxes,
        masks=masks,
        semantic=semantic,
        proposals=proposals,
    )


def _areas(boxes: Tensor) -> Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return sides[:, 0] * sides[:, 1]
