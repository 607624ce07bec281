"""Pooling of regions.

Letters: L levels, K regions, B images, C channels, H W feature size, h w output size. Regions are (K, 5): image index,
x1, y1, x2, y2 in input pixels. Coordinates are computed in float32, or float64 for such features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

PoolMode = Literal["avg", "max"]
Alignment = Literal["aligned", "unaligned", "v1"]
LevelRule = Literal["mmdet", "mmdet-v1", "detectron2", "torchvision"]


def _check_features(features: Tensor, name: str = "features") -> None:
    if features.dim() != 4:
        raise ValueError(f"{name} have shape {tuple(features.shape)}, expected (B, C, H, W)")
    if min(features.shape[2:]) < 1:
        raise ValueError(f"{name} have shape {tuple(features.shape)}, expected at least one pixel to pool from")
    if not features.is_floating_point():
        raise TypeError(f"{name} have dtype {features.dtype}, expected a floating point one")


def _check_rois(rois: Tensor) -> None:
    if rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(f"rois have shape {tuple(rois.shape)}, expected (K, 5)")
    if not rois.is_floating_point():
        raise TypeError(f"rois have dtype {rois.dtype}, expected a floating point one")


def _check_size(size: tuple[int, int], *scales: float) -> None:
    if min(size) < 1:
        raise ValueError(f"output_size is {size}, expected at least 1 each")
    for scale in scales:
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"scale is {scale}, expected a positive number")


def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    scale: float,
    sampling: int = 0,
    alignment: Alignment = "aligned",
    mode: PoolMode = "avg",
) -> Tensor:
    """RoIAlign (He et al., Mask R-CNN, 2017, section 3) from one feature map.

    Args:
        features: (B, C, H, W) floating point.
        rois: (K, 5) as (image index, x1, y1, x2, y2) in input pixels.
        output_size: (h, w).
        scale: feature pixels per input pixel.
        sampling: samples per bin and axis; 0 = as many as the bin is long (rounded up).
        alignment: "aligned" shifts by half a feature pixel, so that pixel centres lie at integers; "unaligned" does
            not and makes regions at least one feature pixel large; "v1" adds one input pixel to x2 and y2 (2019).
        mode: average or maximum of a bin's samples.

    Returns:
        (K, C, h, w) in the dtype and memory format of the features, differentiable in them only.

    Raises:
        ValueError: for other shapes, a size or scale that is not positive, or an unknown alignment or mode.
        TypeError: for features or rois that are not floating point.
        RuntimeError: on the CPU, for an image index outside 0..B-1; on a GPU such a region pools zeros.
    """
    levels = torch.zeros(rois.shape[:1], dtype=torch.int64, device=rois.device)
    return multi_level_roi_align([features], rois, levels, output_size, [scale], sampling, alignment, mode)


def multi_level_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    output_size: tuple[int, int],
    scales: Sequence[float],
    sampling: int = 0,
    alignment: Alignment = "aligned",
    mode: PoolMode = "avg",
) -> Tensor:
    """RoIAlign that pools each region from the level it is assigned to, all levels in one call.

    Args:
        features: L maps (B, C, H_l, W_l) of one dtype.
        rois: (K, 5) as (image index, x1, y1, x2, y2) in input pixels.
        levels: (K,) int64 in 0..L-1; see `roi_levels`.
        output_size: (h, w).
        scales: feature pixels per input pixel of each level.
        sampling, alignment, mode: as in `roi_align`.

    Returns:
        (K, C, h, w) in the dtype and memory format of the first map, differentiable in the features only.

    Raises:
        ValueError: as `roi_align`; also for maps that do not go together.
        TypeError: for features or rois that are not floating point, maps of several dtypes, or other levels.
        RuntimeError: on the CPU, for an image index outside 0..B-1 or a level outside 0..L-1.
    """
    if len(features) == 0 or len(features) != len(scales):
        raise ValueError(f"found {len(features)} maps and {len(scales)} scales, expected as many, and at least one")
    _check_rois(rois)
    _check_size(output_size, *scales)
    first = features[0]
    for number, maps in enumerate(features):
        _check_features(maps, "features" if len(features) == 1 else f"features of level {number}")
        if maps.shape[:2] != first.shape[:2]:
            raise ValueError(f"features of level {number} have shape {tuple(maps.shape)}, level 0 {tuple(first.shape)}")
        if maps.dtype != first.dtype:
            raise TypeError(f"features of level {number} have dtype {maps.dtype}, those of level 0 {first.dtype}")
    if levels.shape != rois.shape[:1]:
        raise ValueError(f"levels have shape {tuple(levels.shape)}, expected ({rois.shape[0]},) to match rois")
    if levels.dtype != torch.int64:
        raise TypeError(f"levels have dtype {levels.dtype}, expected torch.int64")
    if sampling < 0:
        raise ValueError(f"sampling is {sampling}, expected at least 0")
    if alignment not in ("aligned", "unaligned", "v1"):
        raise ValueError(f"alignment is {alignment!r}, expected 'aligned', 'unaligned' or 'v1'")
    if mode not in ("avg", "max"):
        raise ValueError(f"mode is {mode!r}, expected 'avg' or 'max'")
    pooled: Tensor = torch.ops.det.roi_align(
        list(features), rois.detach(), levels, list(output_size), list(scales), sampling, alignment, mode
    )
    return pooled


def roi_levels(rois: Tensor, count: int, finest_scale: float = 56.0, rule: LevelRule = "mmdet") -> Tensor:
    """The level each region is pooled from, by its size (Lin et al., FPN, 2017, equation 1).

    Args:
        rois: (K, 5) as (image index, x1, y1, x2, y2) in input pixels.
        count: how many levels there are, finest first.
        finest_scale: side below twice which a region goes to the finest level.
        rule: "mmdet" is floor(log2(sqrt(w h) / finest_scale + 1e-6)); "mmdet-v1" has w + 1 and h + 1 (2019);
            "detectron2" is floor(2 + log2(sqrt(w h) / (4 finest_scale) + 1e-8)); "torchvision" is
            floor(4 + log2(sqrt(w h) / (4 finest_scale)) + 1e-6) - 2.

    Returns:
        (K,) int64 in 0..count-1.

    Raises:
        ValueError: for other shapes or an unknown rule.
    """
    _check_rois(rois)
    extra = 1 if rule == "mmdet-v1" else 0
    side = ((rois[:, 3] - rois[:, 1] + extra) * (rois[:, 4] - rois[:, 2] + extra)).clamp(min=0).sqrt()
    if rule in ("mmdet", "mmdet-v1"):
        level = torch.log2(side / finest_scale + 1e-6).floor()
    elif rule == "detectron2":
        level = (2 + torch.log2(side / (4 * finest_scale) + 1e-8)).floor()
    elif rule == "torchvision":
        level = (4 + torch.log2(side / (4 * finest_scale)) + 1e-6).floor() - 2
    else:
        raise ValueError(f"rule is {rule!r}, expected 'mmdet', 'mmdet-v1', 'detectron2' or 'torchvision'")
    return level.nan_to_num(0).clamp(0, count - 1).long()


def roi_pool(features: Tensor, rois: Tensor, output_size: tuple[int, int], scale: float) -> Tensor:
    """RoIPool (Girshick, Fast R-CNN, 2015, section 2.1), with the unrounded edges of 2019's detectors.

    A region spans x1 * scale to (x2 + 1) * scale; a bin covers the pixels from the floor of its start to the ceiling
    of its end. Not torchvision's definition, which rounds the edges first.

    Args:
        features: (B, C, H, W) floating point.
        rois: (K, 5) as (image index, x1, y1, x2, y2) in input pixels.
        output_size: (h, w).
        scale: feature pixels per input pixel.

    Returns:
        (K, C, h, w): the maximum of each bin (the first of equals), 0 for an empty one.

    Raises:
        ValueError: for other shapes, or a size or scale that is not positive.
        TypeError: for features or rois that are not floating point.
        RuntimeError: on the CPU, for an image index outside 0..B-1.
    """
    _check_features(features)
    _check_rois(rois)
    _check_size(output_size, scale)
    pooled: Tensor = torch.ops.det.roi_pool(features, rois.detach(), list(output_size), scale)[0]
    return pooled


def deform_roi_pool(
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: tuple[int, int],
    scale: float,
    sampling: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    """Deformable RoI pooling (Dai et al., Deformable ConvNets, 2017, section 2.2): RoIAlign with shifted bins.

    Bin (p, q) of region k is shifted by gamma * (width, height) * offset[k, :, p, q]. Multiply the result by a mask
    for the modulated form (Zhu et al., 2019).

    Args:
        features: (B, C, H, W) floating point.
        rois: (K, 5) as (image index, x1, y1, x2, y2) in input pixels.
        offset: (K, 2, h, w) as (x, y), or None for none.
        output_size: (h, w).
        scale: feature pixels per input pixel.
        sampling: samples per bin and axis; 0 = as many as the bin is long.
        gamma: share of the region's size by which an offset of 1 shifts.

    Returns:
        (K, C, h, w), differentiable in features and offset.

    Raises:
        ValueError: for other shapes, or a size or scale that is not positive.
        TypeError: for features, rois or offset that are not floating point.
        RuntimeError: on the CPU, for an image index outside 0..B-1.
    """
    _check_features(features)
    _check_rois(rois)
    _check_size(output_size, scale)
    if sampling < 0:
        raise ValueError(f"sampling is {sampling}, expected at least 0")
    if offset is not None and offset.shape != (rois.shape[0], 2, *output_size):
        expected = (rois.shape[0], 2, *output_size)
        raise ValueError(f"offset has shape {tuple(offset.shape)}, expected {expected} as (K, 2, h, w)")
    pooled: Tensor = torch.ops.det.deform_roi_pool(
        features, rois.detach(), offset, list(output_size), scale, sampling, gamma
    )
    return pooled


def deform_psroi_pool(
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    output_size: tuple[int, int],
    scale: float,
    channels: int,
    group_size: int = 1,
    part_size: int | None = None,
    samples: int = 4,
    gamma: float = 0.1,
) -> Tensor:
    """The position-sensitive deformable RoI pooling of 2019's detectors (Dai et al., 2017, section 2.2).

    Regions are rounded to whole pixels, inclusive, and at least 0.1 feature pixels large. A bin averages samples x
    samples points at the left edges of its cells; those outside -0.5 .. size - 0.5 are not counted.

    Args:
        features: (B, channels * group_size ** 2, H, W) floating point.
        rois: (K, 5) as (image index, x1, y1, x2, y2) in input pixels.
        offset: (K, 2 * classes, part, part) as (x, y) of each class, or None for none; classes divides channels.
        output_size: (h, w).
        scale: feature pixels per input pixel.
        channels: C of the result.
        group_size: bins of the position-sensitive maps along each axis.
        part_size: bins of the offsets along each axis; None for h.
        samples: points per bin and axis.
        gamma: share of the region's size by which an offset of 1 shifts.

    Returns:
        (K, channels, h, w), differentiable in features and offset.

    Raises:
        ValueError: for other shapes, or a size or scale that is not positive.
        TypeError: for features or rois that are not floating point.
        RuntimeError: on the CPU, for an image index outside 0..B-1.
    """
    _check_features(features)
    _check_rois(rois)
    _check_size(output_size, scale)
    part = output_size[0] if part_size is None else part_size
    if min(group_size, part, samples, channels) < 1:
        raise ValueError("channels, group_size, part_size and samples must be at least 1")
    if features.shape[1] != channels * group_size**2:
        raise ValueError(f"features have {features.shape[1]} channels, expected {channels} * {group_size} ** 2")
    if offset is not None:
        classes = offset.shape[1] // 2 if offset.dim() == 4 else 0
        if offset.shape != (rois.shape[0], 2 * classes, part, part) or classes < 1 or channels % classes:
            found, wanted = tuple(offset.shape), f"({rois.shape[0]}, 2 * classes, {part}, {part})"
            raise ValueError(f"offset has shape {found}, expected {wanted} with classes a divisor of {channels}")
    pooled: Tensor = torch.ops.det.deform_psroi_pool(
        features, rois.detach(), offset, list(output_size), scale, channels, group_size, part, samples, gamma
    )
    return pooled
