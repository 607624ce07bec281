"""The definition of each operator in plain PyTorch: any device and dtype, written to be read.

Letters: N boxes, K regions, B images, C channels, H W feature size, h w output size, g samples. Boxes are xyxy.
"""

from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Half precisions are computed in float32."""
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32


def nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int = 0) -> Tensor:
    """(n,) int64 kept indices, best first; see `det_ops.nms`."""
    boxes = boxes.to(compute_dtype(boxes.dtype))
    limit = torch.tensor(threshold, dtype=boxes.dtype, device=boxes.device)
    order = torch.sort(scores, descending=True, stable=True).indices
    x1, y1, x2, y2 = boxes[order].unbind(1)
    area = (x2 - x1 + offset) * (y2 - y1 + offset)
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    for i in range(len(order)):
        if not alive[i]:
            continue
        rest = slice(i + 1, None)
        width = (torch.minimum(x2[i], x2[rest]) - torch.maximum(x1[i], x1[rest]) + offset).clamp(min=0)
        height = (torch.minimum(y2[i], y2[rest]) - torch.maximum(y1[i], y1[rest]) + offset).clamp(min=0)
        inter = width * height
        # NaN (0/0) compares false, so it suppresses nothing.
        alive[rest] &= ~(inter / (area[i] + area[rest] - inter) > limit)
    return order[alive]


def roi_align(
    features: Tensor, rois: Tensor, output_size: tuple[int, int], scale: float, sampling: int, aligned: bool, mode: str
) -> Tensor:
    """(K, C, h, w); see `det_ops.roi_align`. Regions with equally many samples per bin are done together."""
    h, w = output_size
    real = compute_dtype(features.dtype)
    rois = rois.to(real)
    shift = 0.5 if aligned else 0.0
    start_x, start_y = rois[:, 1] * scale - shift, rois[:, 2] * scale - shift
    size_x, size_y = rois[:, 3] * scale - shift - start_x, rois[:, 4] * scale - shift - start_y
    if not aligned:
        size_x, size_y = size_x.clamp(min=1), size_y.clamp(min=1)
    bin_y, bin_x = size_y / h, size_x / w
    if sampling > 0:
        grids = torch.full((len(rois), 2), sampling, dtype=torch.int64, device=rois.device)
    else:
        grids = torch.stack([bin_y, bin_x], 1).nan_to_num(0).ceil().clamp(min=0).long()
    out = features.new_zeros((len(rois), features.shape[1], h, w))
    pieces, indices = [], []
    for grid in torch.unique(grids, dim=0):
        gh, gw = int(grid[0]), int(grid[1])
        which = (grids == grid).all(1).nonzero().flatten()
        if gh == 0 or gw == 0:
            continue  # an empty grid leaves zeros
        y = _samples(start_y[which], bin_y[which], h, gh)
        x = _samples(start_x[which], bin_x[which], w, gw)
        values = _bilinear(features.to(real), rois[which, 0].long(), y, x).unflatten(3, (w, gw)).unflatten(2, (h, gh))
        pooled = values.mean((3, 5)) if mode == "avg" else values.amax((3, 5))
        pieces.append(pooled.to(out.dtype))
        indices.append(which)
    return out.index_copy(0, torch.cat(indices), torch.cat(pieces)) if pieces else out + features.sum() * 0


def _samples(start: Tensor, step: Tensor, bins: int, grid: int) -> Tensor:
    """(K, bins * grid) sample positions along one axis."""
    inside = (torch.arange(grid, device=start.device, dtype=start.dtype) + 0.5) / grid
    cell = torch.arange(bins, device=start.device, dtype=start.dtype)
    return (start[:, None, None] + (cell[:, None] + inside) * step[:, None, None]).flatten(1)


def _bilinear(features: Tensor, image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Values at all pairs of y (K, a) and x (K, b): (K, C, a, b); 0 beyond one pixel outside, clamped inside that."""
    height, width = features.shape[-2:]
    y_low, y_high, y_frac, y_in = _corners(y, height)
    x_low, x_high, x_frac, x_in = _corners(x, width)
    maps = features.permute(0, 2, 3, 1)  # (B, H, W, C)

    def corner(rows: Tensor, columns: Tensor) -> Tensor:
        return maps[image[:, None, None], rows[:, :, None], columns[:, None, :]]

    fy, fx = y_frac[:, :, None, None], x_frac[:, None, :, None]
    top = corner(y_low, x_low) * (1 - fx) + corner(y_low, x_high) * fx
    bottom = corner(y_high, x_low) * (1 - fx) + corner(y_high, x_high) * fx
    inside = (y_in[:, :, None] & x_in[:, None, :])[..., None]
    value = torch.where(inside, top * (1 - fy) + bottom * fy, torch.zeros((), dtype=maps.dtype, device=maps.device))
    return value.permute(0, 3, 1, 2)


def _corners(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lower and upper index, weight of the upper, and whether the sample counts, along one axis."""
    counts = (position >= -1) & (position <= size)
    position = position.nan_to_num(0).clamp(min=0, max=size)
    low = position.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    frac = torch.where(low >= size - 1, torch.zeros_like(position), position - low)
    return low, high, frac, counts
