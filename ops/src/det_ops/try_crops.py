"""Random crops that overlap an object enough (Liu et al., SSD, 2016, section 2.2). Letters: n boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from det_ops import checks
from det_ops.reference import crops as reference
from det_ops.registration import operator


def try_crops(
    boxes: Tensor,
    numbers: Tensor,
    size: tuple[int, int],
    sides: tuple[float, float],
    aspects: tuple[float, float],
    overlap: float,
) -> Tensor:
    """The first crop, of those that random numbers describe, that has at least an IoU with an object inside.

    Sides, places and overlaps are those of torchvision's `RandomIoUCrop` in one round of its trials. An object is
    inside if its centre is. Each try uses two numbers for its sides, and two more for its place if their ratio is
    allowed.

    Args:
        boxes: (n, 4) float32, xyxy in pixels.
        numbers: (4 * tries,) float32, uniform in 0..1.
        size: (height, width) of the image.
        sides: Least and largest sides, as fractions of those of the image.
        aspects: Least and largest width over height.
        overlap: The least IoU.

    Returns:
        (5,) int64: left, top, right and bottom in pixels, and how many of the numbers were used. The first four are 0
        if no try is accepted.

    Raises:
        ValueError: for other shapes, or a size below 1.
        TypeError: for other dtypes.
    """
    checks.check_boxes(boxes)
    for x, subject in ((boxes, "boxes have"), (numbers, "numbers have")):
        if x.dtype != torch.float32:
            raise TypeError(f"{subject} dtype {x.dtype}, expected torch.float32")
    if numbers.dim() != 1 or len(numbers) == 0 or len(numbers) % 4:
        raise ValueError(f"numbers have shape {tuple(numbers.shape)}, expected (4 * tries,)")
    if min(size) < 1:
        raise ValueError(f"size is {tuple(size)}, expected at least 1 each")
    return _try_crops(boxes, numbers, *size, list(sides), list(aspects), overlap)


_try_crops = operator(
    "try_crops",
    reference.try_crops,
    fake=lambda boxes, numbers, height, width, sides, aspects, overlap: boxes.new_empty(5, dtype=torch.int64),
)
