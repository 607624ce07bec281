"""Affine maps of images with their annotations. Letters: n objects, H W size of the image."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from det_core.compressed_masks import bitmaps_of, mask_boxes
from det_core.contracts import Sample
from det_core.data.augmentation_config import AffineConfig
from det_core.data.configured import Configured
from det_core.data.placement import areas, clipped
from det_core.data.random_numbers import happens
from det_core.structures import UNLABELLED


class Affine(Configured[AffineConfig]):
    """Turns, shifts, scales and shears about the centre."""

    def __call__(self, sample: Sample, /) -> Sample:
        if not happens(self.config.probability):
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
    visible = areas(boxes) / areas(around).clamp(min=1e-9)
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


def rotation(
    angle: float, translate: tuple[float, float], scale: float, shear: tuple[float, float], size: tuple[int, int]
) -> Tensor:
    """(2, 3) float64, the map of pixels (x, y) of an image of (height, width) of `v2.functional.affine`.

    angle and shear in degrees, clockwise; translate (x, y) in pixels. It turns about the centre of the image.
    """
    turn, shear_x, shear_y = (math.radians(value) for value in (angle, *shear))
    a = math.cos(turn - shear_y) / math.cos(shear_y)
    b = -a * math.tan(shear_x) - math.sin(turn)
    c = math.sin(turn - shear_y) / math.cos(shear_y)
    d = -c * math.tan(shear_x) + math.cos(turn)
    matrix = scale * torch.tensor([[a, b], [c, d]], dtype=torch.float64)
    centre = torch.tensor([size[1] / 2, size[0] / 2], dtype=torch.float64)
    shift = centre + torch.tensor(translate, dtype=torch.float64) - matrix @ centre
    return torch.cat([matrix, shift[:, None]], dim=1)


def moved_boxes(boxes: Tensor, matrix: Tensor) -> Tensor:
    """The boxes (n, 4) around the corners of boxes (n, 4) that a map (2, 3) moves; not clipped."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).double()
    placed = corners @ matrix[:, :2].T + matrix[:, 2]
    return torch.cat([placed.amin(1), placed.amax(1)], dim=1).to(boxes.dtype)
