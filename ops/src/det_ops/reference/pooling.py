"""Pooling of regions. Letters: K regions, B images, C channels, H W feature size, h w output size, g samples per bin.

Regions are (K, 5): image index, x1, y1, x2, y2 in input pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from det_ops import checks
from det_ops.memory_format import match_format
from det_ops.reference.precision import compute_dtype, full
from det_ops.reference.sampling import Axis, bilinear_grid, bilinear_points


def extent(rois: Tensor, scale: float, alignment: str) -> tuple[Tensor, Tensor]:
    """(K, 2) start and (K, 2) size of regions as (y, x), in feature pixels."""
    low, high = rois[:, [2, 1]], rois[:, [4, 3]]
    if alignment == "v1":
        start = low * scale
        return start, ((high + 1) * scale - start).clamp(min=0)
    shift = 0.5 if alignment == "aligned" else 0.0
    start = low * scale - shift
    size = high * scale - shift - start
    return start, size if alignment == "aligned" else size.clamp(min=1)


def grids(size: Tensor, out: Sequence[int], sampling: int) -> Tensor:
    """(K, 2) int64 samples per bin along y and x; 0 if a region has no extent or is not a number."""
    if sampling > 0:
        return torch.full(size.shape, sampling, dtype=torch.int64, device=size.device)
    per_bin = size / torch.tensor(out, dtype=size.dtype, device=size.device)
    return per_bin.nan_to_num(0, posinf=0, neginf=0).ceil().clamp(min=0, max=2**31).long()


def roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    size: Sequence[int],
    scales: Sequence[float],
    sampling: int,
    alignment: str,
    mode: str,
) -> Tensor:
    """(K, C, h, w): each region is pooled from its level in `levels` (K,); see `det_ops.roi_align`."""
    checks.check_images(rois, len(features[0]))
    checks.check_index_range("levels name one outside", levels, len(features))
    out = features[0].new_zeros((len(rois), features[0].shape[1], *size))
    for number, (maps, scale) in enumerate(zip(features, scales, strict=True)):
        member = (levels == number).nonzero().flatten()
        pooled = _roi_align(maps, rois[member], size, scale, sampling, alignment, mode)
        out = out.index_copy(0, member, pooled)
    return match_format(out, features[0])


def _roi_align(
    features: Tensor, rois: Tensor, out_size: Sequence[int], scale: float, sampling: int, alignment: str, mode: str
) -> Tensor:
    """One level. Regions with the same number of samples per bin are pooled together, very large ones one at a time."""
    height, width = features.shape[-2:]
    real = compute_dtype(features.dtype)
    start, size = extent(rois.to(real), scale, alignment)
    grid = grids(size, out_size, sampling)
    step = size / torch.tensor(out_size, dtype=real, device=rois.device)
    image = rois[:, 0].long()
    large = (grid[:, 0] * out_size[0] > 4 * height + 64) | (grid[:, 1] * out_size[1] > 4 * width + 64)
    keys = torch.where(large, torch.arange(len(rois), device=rois.device), -1)
    pieces, indices = [features.new_zeros((0, features.shape[1], *out_size))], [image[:0]]
    for gh, gw, single in torch.unique(torch.cat([grid, keys[:, None]], 1), dim=0).tolist():
        which = ((grid == grid.new_tensor([gh, gw])).all(1) & (keys == single)).nonzero().flatten()
        if gh == 0 or gw == 0:
            continue  # an empty grid leaves zeros
        axes = [
            Axis(start[which, i], step[which, i], out_size[i], (gh, gw)[i], (height, width)[i], clip=single >= 0)
            for i in (0, 1)
        ]
        pieces.append(bilinear_grid(features.to(real), image[which], axes[0], axes[1], mode).to(features.dtype))
        indices.append(which)
    zeros = features.new_zeros((len(rois), features.shape[1], *out_size)) + features.sum() * 0
    return zeros.index_copy(0, torch.cat(indices), torch.cat(pieces))


def roi_pool(features: Tensor, rois: Tensor, size: Sequence[int], scale: float) -> tuple[Tensor, Tensor]:
    """(K, C, h, w) maxima and their int64 positions y * W + x, -1 for an empty bin; see `det_ops.roi_pool`."""
    checks.check_images(rois, len(features))
    height, width = features.shape[-2:]
    start, extents = extent(full(rois.to(compute_dtype(features.dtype))), scale, "v1")
    maxima, positions = [], []
    for k, image in enumerate(rois[:, 0].long().tolist()):
        bins = []
        for axis, limit in ((0, height), (1, width)):
            step, count = extents[k, axis] / size[axis], size[axis]
            number = torch.arange(count, dtype=step.dtype, device=step.device)
            low = (number * step + start[k, axis]).floor().nan_to_num(0).clamp(0, limit).long().tolist()
            high = ((number + 1) * step + start[k, axis]).ceil().nan_to_num(0).clamp(0, limit).long().tolist()
            bins.append(list(zip(low, high, strict=True)))
        present = bool((extents[k] > 0).all())
        for y1, y2 in bins[0]:
            for x1, x2 in bins[1]:
                if not present or y2 <= y1 or x2 <= x1:
                    maxima.append(features.new_zeros(features.shape[1]))
                    positions.append(torch.full_like(maxima[-1], -1, dtype=torch.int64))
                    continue
                best, at = features[image, :, y1:y2, x1:x2].flatten(1).max(1)
                maxima.append(best)
                positions.append((y1 + at // (x2 - x1)) * width + x1 + at % (x2 - x1))
    if not maxima:
        empty = features.new_zeros((len(rois), features.shape[1], *size))
        return empty, empty.long()
    shape = (len(rois), *size, features.shape[1])
    pooled, at = (torch.stack(values).view(shape).permute(0, 3, 1, 2) for values in (maxima, positions))
    return match_format(pooled, features), match_format(at, features)


def deform_roi_pool(
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    size: Sequence[int],
    scale: float,
    sampling: int,
    gamma: float,
) -> Tensor:
    """(K, C, h, w): RoIAlign whose bins are shifted by offset (K, 2 as (x, y), h, w); see `det_ops.deform_roi_pool`."""
    checks.check_images(rois, len(features))
    real = compute_dtype(features.dtype)
    start, extents = extent(rois.to(real), scale, "aligned")
    grid = grids(extents, size, sampling)
    step = extents / torch.tensor(size, dtype=real, device=rois.device)
    pooled = []
    for k, (gh, gw) in enumerate(grid.tolist()):
        if gh == 0 or gw == 0:
            pooled.append(features.new_zeros((features.shape[1], *size), dtype=real))
            continue
        image = features[int(rois[k, 0])].to(real)
        if gh * size[0] > 4 * image.shape[1] + 64 or gw * size[1] > 4 * image.shape[2] + 64:
            shift = None if offset is None else gamma * extents[k, :, None, None] * offset[k].to(real).flip(0)
            pooled.append(_deform_large(image, start[k], step[k], (gh, gw), shift, size))
            continue
        y = _positions(start[k, 0], step[k, 0], size[0], gh)[:, None, :].expand(-1, size[1], -1)  # (h, w, gh)
        x = _positions(start[k, 1], step[k, 1], size[1], gw)[None].expand(size[0], -1, -1)  # (h, w, gw)
        if offset is not None:
            shift = offset[k].to(real)
            y = y + (gamma * extents[k, 0] * shift[1])[:, :, None]
            x = x + (gamma * extents[k, 1] * shift[0])[:, :, None]
        y, x = torch.broadcast_tensors(y[..., :, None], x[..., None, :])  # (h, w, gh, gw)
        pooled.append(bilinear_points(image, y, x).mean((-2, -1)))
    if not pooled:
        return features.new_zeros((0, features.shape[1], *size))
    return match_format(torch.stack(pooled).to(features.dtype), features)


def _deform_large(
    image: Tensor, start: Tensor, step: Tensor, grid: tuple[int, int], shift: Tensor | None, size: Sequence[int]
) -> Tensor:
    """(C, h, w) of one very large region of image (C, H, W), bin by bin, without the samples outside the map.

    start, step (2,), grid and shift (2, h, w) are as (y, x).
    """
    cells = []
    for bins in itertools.product(range(size[0]), range(size[1])):
        y, x = (
            Axis(
                (start[i] + bins[i] * step[i] + (0 if shift is None else shift[(i, *bins)]))[None],
                *(step[i][None], 1, grid[i], image.shape[1 + i]),
                clip=True,
            ).position[0]
            for i in (0, 1)
        )
        points = torch.broadcast_tensors(y[:, None], x[None])
        cells.append(bilinear_points(image, *points).sum((-2, -1)) / (grid[0] * float(grid[1])))
    return torch.stack(cells, 1).unflatten(1, size)


def _positions(start: Tensor, step: Tensor, bins: int, grid: int) -> Tensor:
    """(bins, grid) sample positions along one axis of one region."""
    number = torch.arange(bins, device=start.device, dtype=start.dtype)
    inside = torch.arange(grid, device=start.device, dtype=start.dtype) + 0.5
    return start + (number * step)[:, None] + inside * step / grid


def deform_psroi_pool(
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    size: Sequence[int],
    scale: float,
    channels: int,
    group: int,
    part: int,
    samples: int,
    gamma: float,
) -> Tensor:
    """(K, channels, h, w); see `det_ops.deform_psroi_pool`."""
    checks.check_images(rois, len(features))
    real = compute_dtype(features.dtype)
    height, width = features.shape[-2:]
    device = features.device
    rois = rois.to(real)
    start = rois[:, [2, 1]].round() * scale - 0.5
    extents = ((rois[:, [4, 3]].round() + 1) * scale - 0.5 - start).clamp(min=0.1)
    step = extents / torch.tensor(size, dtype=real, device=device)
    classes = 1 if offset is None else offset.shape[1] // 2
    class_of = torch.arange(channels, device=device) // (channels // classes)
    rows, columns = torch.arange(size[0], device=device), torch.arange(size[1], device=device)
    row_part, column_part = rows * part // size[0], columns * part // size[1]
    row_group, column_group = (
        (rows * group // size[0]).clamp(max=group - 1),
        (columns * group // size[1]).clamp(max=group - 1),
    )
    source = (torch.arange(channels, device=device)[:, None, None] * group + row_group[:, None]) * group + column_group
    within = torch.arange(samples, device=device, dtype=real)
    pooled = [features.new_zeros((0, channels, *size), dtype=real)]
    for k in range(len(rois)):
        y = (start[k, 0] + rows * step[k, 0])[None, :, None].expand(channels, *size)
        x = (start[k, 1] + columns * step[k, 1])[None, None].expand(channels, *size)
        if offset is not None:
            shift = offset[k].to(real).unflatten(0, (classes, 2))[class_of][:, :, row_part][..., column_part]
            x = x + gamma * extents[k, 1] * shift[:, 0]
            y = y + gamma * extents[k, 0] * shift[:, 1]
        y = (y[..., None] + within * step[k, 0] / samples)[..., :, None]  # (channels, h, w, samples, 1)
        x = (x[..., None] + within * step[k, 1] / samples)[..., None, :]
        counts = (y >= -0.5) & (y <= height - 0.5) & (x >= -0.5) & (x <= width - 0.5)
        y, x = (  # points that are not counted may be NaN
            torch.where(counts, at, torch.zeros_like(at)).clamp(0, limit - 1) for at, limit in ((y, height), (x, width))
        )
        values = _per_channel(features[int(rois[k, 0])].to(real), source, y, x) * counts
        pooled.append((values.sum((-2, -1)) / counts.sum((-2, -1)).clamp(min=1))[None])
    return match_format(torch.cat(pooled).to(features.dtype), features)


def _per_channel(features: Tensor, source: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Bilinear values of features (C', H, W), channel source (c, h, w) at y and x (c, h, w, s, s) inside the map."""
    height, width = features.shape[-2:]
    y_low, x_low = y.detach().floor().long(), x.detach().floor().long()
    y_high, x_high = (y_low + 1).clamp(max=height - 1), (x_low + 1).clamp(max=width - 1)
    channel = source[..., None, None]
    fy, fx = y - y_low, x - x_low
    top = features[channel, y_low, x_low] * (1 - fx) + features[channel, y_low, x_high] * fx
    bottom = features[channel, y_high, x_low] * (1 - fx) + features[channel, y_high, x_high] * fx
    return top * (1 - fy) + bottom * fy
