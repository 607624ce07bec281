"""Images that are placed on a canvas or cropped, without drawing the canvas: resizing reads through it.

Letters: C channels, H W size of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from torch import Tensor

from det_core.contracts import Sample
from det_ops import Canvas

if TYPE_CHECKING:
    from numpy.typing import NDArray

Crop = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels


def drawn(sample: Sample) -> Sample:
    """The sample with an image that has all its pixels: if it has a canvas, that is drawn."""
    if sample.canvas is None:
        return sample
    return attrs.evolve(sample, image=_draw(sample.image, sample.canvas), canvas=None)


def cropped(image: Tensor, canvas: Canvas | None, crop: Crop) -> tuple[Tensor, Canvas | None]:
    """A crop of an image (C, H, W), or of the canvas that it is placed on, as a view of the image where it has pixels.

    crop: within the image or the canvas. The canvas is None if the image has pixels everywhere.
    """
    x1, y1, x2, y2 = crop
    if canvas is None:
        return image[:, y1:y2, x1:x2], None
    bottom, right = canvas.top + image.shape[1], canvas.left + image.shape[2]
    left, top = max(x1, canvas.left), max(y1, canvas.top)
    right, bottom = min(x2, right), min(y2, bottom)
    if left >= right or top >= bottom:  # nothing of the image is in the crop
        return _draw(image[:, :0, :0], Canvas(y2 - y1, x2 - x1, 0, 0, canvas.fill)), None
    view = image[:, top - canvas.top : bottom - canvas.top, left - canvas.left : right - canvas.left]
    if (left, top, right, bottom) == crop:
        return view, None
    return view, Canvas(y2 - y1, x2 - x1, top - y1, left - x1, canvas.fill)


def moved(boxes: Tensor, right: int, down: int, size: tuple[int, int]) -> Tensor:
    """Boxes (n, 4), moved by pixels and clipped to (height, width) as by torchvision. A new tensor."""
    corners = boxes.numpy()
    return torch.from_numpy(_clipped(corners + np.array([right, down, right, down], corners.dtype), size))


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (n, 4), clipped to an image of (height, width). A new tensor."""
    return torch.from_numpy(_clipped(boxes.numpy(), size))


# Of few boxes, numpy takes less than half of torch's time, with the same values.
def _clipped(boxes: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    height, width = size
    inside = np.maximum(boxes, 0)
    return np.minimum(inside, np.array([width, height, width, height], boxes.dtype), out=inside)


def areas(boxes: Tensor) -> Tensor:
    """(n,) areas of boxes (n, 4); 0 of boxes whose right or bottom is before their left or top."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return sides[:, 0] * sides[:, 1]


def _draw(image: Tensor, canvas: Canvas) -> Tensor:
    """(C, height, width) of the image's dtype, pixel by pixel in memory, as images are resized fastest."""
    colour = torch.tensor(canvas.fill, dtype=image.dtype, device=image.device)
    channels, height, width = image.shape
    row = colour.repeat(canvas.width)  # one row, copied, is far sooner done than as many pixels
    pixels = row.repeat(canvas.height, 1).view(canvas.height, canvas.width, channels).permute(2, 0, 1)
    pixels[:, canvas.top : canvas.top + height, canvas.left : canvas.left + width] = image
    return pixels
