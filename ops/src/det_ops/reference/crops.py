"""The first of random crops that overlaps an object enough, in plain PyTorch: the definition of `det_ops.try_crops`.

The arithmetic is that of torchvision's `RandomIoUCrop`: float32, and the ratio of two whole numbers in float64.
Letters: n boxes, m crops.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def try_crops(
    boxes: Tensor,
    numbers: Tensor,
    height: int,
    width: int,
    sides: Sequence[float],
    aspects: Sequence[float],
    overlap: float,
) -> Tensor:
    """boxes (n, 4) and numbers (4 * tries,) in 0..1 to (5,) int64: left, top, right, bottom, and the numbers used.

    A try uses two numbers for its sides and, if their ratio is allowed, two for its place. right is 0 if no try is
    accepted.
    """
    lengths = sides[0] + (sides[1] - sides[0]) * numbers.float()
    wide, high = (width * lengths[:-1]).long(), (height * lengths[1:]).long()  # of a try that starts at each number
    ratios = wide.double() / high.double()
    starts, used = _starts(((aspects[0] <= ratios) & (ratios <= aspects[1])).tolist(), len(numbers) // 4)
    at = torch.tensor(starts, dtype=torch.int64, device=numbers.device)
    w, h = wide[at], high[at]
    left, top = ((width - w) * numbers[at + 2]).long(), ((height - h) * numbers[at + 3]).long()
    crops = torch.stack([left, top, left + w, top + h], 1)
    accepted = ((w > 0) & (h > 0) & (_best_overlaps(boxes, crops) >= torch.tensor(overlap).float())).nonzero()
    if len(accepted) == 0:
        return torch.tensor([0, 0, 0, 0, used], device=boxes.device)
    first = int(accepted[0])
    return torch.cat([crops[first], at[first, None] + 4]).to(boxes.device)


def _starts(allowed: Sequence[bool], tries: int) -> tuple[list[int], int]:
    """The first number of each try of an allowed ratio, and how many numbers all tries use."""
    starts, used = [], 0
    for _ in range(tries):
        if allowed[used]:
            starts.append(used)
        used += 4 if allowed[used] else 2
    return starts, used


def _best_overlaps(boxes: Tensor, crops: Tensor) -> Tensor:
    """(m,) float32 largest IoU of crops (m, 4) with the boxes whose centres are inside; -1 if there is none."""
    x1, y1, x2, y2 = boxes.float().unbind(1)
    left, top, right, bottom = crops[:, None].unbind(2)  # (m, 1)
    x, y = 0.5 * (x1 + x2), 0.5 * (y1 + y2)
    inside = (left < x) & (x < right) & (top < y) & (y < bottom)  # (m, n)
    width = (torch.minimum(x2, right.float()) - torch.maximum(x1, left.float())).clamp(min=0)
    height = (torch.minimum(y2, bottom.float()) - torch.maximum(y1, top.float())).clamp(min=0)
    common = width * height
    area = ((right - left) * (bottom - top)).float()
    overlaps = common / ((x2 - x1) * (y2 - y1) + area - common)
    return torch.where(inside, overlaps, -1.0).amax(dim=1) if len(boxes) else overlaps.new_full((len(crops),), -1.0)
