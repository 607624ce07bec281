"""Bilinear sampling of RoIAlign: 0 beyond one pixel outside the map, the value of the edge up to there.

Letters: K regions, C channels, H W map size, h w bins, s samples per bin along an axis.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Axis:
    """The samples of K regions along one axis: where they are, and to which bin each belongs.

    start, step (K,): position of the first bin and size of a bin. `clip`, for a single region, omits the samples
    outside the map, of which a huge region has millions.
    """

    def __init__(self, start: Tensor, step: Tensor, bins: int, grid: int, limit: int, clip: bool) -> None:
        self.bins, self.grid, self.clip = bins, grid, clip
        number = torch.arange(bins, device=start.device)
        if not clip:
            inside = torch.arange(grid, device=start.device, dtype=start.dtype) + 0.5
            first, step = (start[:, None] + number.to(start.dtype) * step[:, None])[:, :, None], step[:, None, None]
            self.position = (first + inside * step / grid).flatten(1)  # (K, bins * grid)
            self.bin = number.repeat_interleave(grid)
        else:
            self.bin, index = _inside(float(start.detach()), float(step), bins, grid, limit, start.device)
            position = start + self.bin.to(start.dtype) * step + (index.to(start.dtype) + 0.5) * step / grid
            self.position = position[None]
        self.low, self.high, self.fraction, self.counts = corners(self.position, limit)


def _inside(start: float, step: float, bins: int, grid: int, limit: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Bin and index in it of every sample that can lie in [-1, limit], with a margin for rounding."""
    if not math.isfinite(start):
        bins = 0
    numbers, indices = [], []
    margin = 2 + 1e-6 * abs(start) + 1e-6 * abs(step) * bins
    for number in range(bins):
        first = max(0, min(grid, int((-1 - margin - start - number * step) * grid / step)))
        last = max(0, min(grid, int((limit + margin - start - number * step) * grid / step) + 2))
        found = torch.arange(first, max(first, last), device=device)
        indices.append(found)
        numbers.append(torch.full_like(found, number))
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return torch.cat([none, *numbers]), torch.cat([none, *indices])


def corners(position: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For positions (...): lower and upper index, weight of the upper, and whether the sample counts."""
    counts = (position >= -1) & (position <= limit)
    position = position.nan_to_num(0).clamp(min=0, max=limit)
    low = position.detach().floor().long().clamp(max=limit - 1)
    high = (low + 1).clamp(max=limit - 1)
    fraction = torch.where(low >= limit - 1, torch.zeros_like(position), position - low)
    return low, high, fraction, counts


def bilinear_grid(features: Tensor, image: Tensor, rows: Axis, columns: Axis, mode: str) -> Tensor:
    """(K, C, h, w): the mean or maximum of each bin's samples; features (B, C, H, W), image (K,)."""
    maps = features.permute(0, 2, 3, 1)  # (B, H, W, C)

    def corner(y: Tensor, x: Tensor) -> Tensor:
        return maps[image[:, None, None], y[:, :, None], x[:, None, :]]

    fy, fx = rows.fraction[:, :, None, None], columns.fraction[:, None, :, None]
    top = corner(rows.low, columns.low) * (1 - fx) + corner(rows.low, columns.high) * fx
    bottom = corner(rows.high, columns.low) * (1 - fx) + corner(rows.high, columns.high) * fx
    counts = (rows.counts[:, :, None] & columns.counts[:, None, :])[..., None]
    value = torch.where(counts, top * (1 - fy) + bottom * fy, maps.new_zeros(()))  # (K, rows, columns, C)
    if rows.clip:
        return _reduce_clipped(value[0], rows, columns, mode)[None]
    value = value.unflatten(2, (columns.bins, columns.grid)).unflatten(1, (rows.bins, rows.grid))
    value = value.permute(0, 5, 1, 3, 2, 4).flatten(-2)  # (K, C, h, w, samples), rows first
    return value.mean(-1) if mode == "avg" else value.max(-1).values


def _reduce_clipped(value: Tensor, rows: Axis, columns: Axis, mode: str) -> Tensor:
    """(C, h, w) of one region's values (rows, columns, C); omitted samples are 0."""
    if mode == "avg":
        out = value.new_zeros((rows.bins, value.shape[1], value.shape[2])).index_add(0, rows.bin, value)
        out = out.new_zeros((rows.bins, columns.bins, value.shape[2])).index_add(1, columns.bin, out)
        return (out / (rows.grid * float(columns.grid))).permute(2, 0, 1)
    cells = []
    for y in range(rows.bins):
        for x in range(columns.bins):
            cell = value[rows.bin == y][:, columns.bin == x].flatten(0, 1)
            if len(cell) < rows.grid * columns.grid:
                cell = torch.cat([cell, value.new_zeros((1, value.shape[2]))])
            cells.append(cell.max(0).values)
    return torch.stack(cells, 1).unflatten(1, (rows.bins, columns.bins))


def bilinear_points(features: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """(C, ...) values of features (C, H, W) at points y and x (...), differentiable in both."""
    height, width = features.shape[-2:]
    y_low, y_high, fy, y_counts = corners(y, height)
    x_low, x_high, fx, x_counts = corners(x, width)
    top = features[:, y_low, x_low] * (1 - fx) + features[:, y_low, x_high] * fx
    bottom = features[:, y_high, x_low] * (1 - fx) + features[:, y_high, x_high] * fx
    return torch.where(y_counts & x_counts, top * (1 - fy) + bottom * fy, features.new_zeros(()))
