"""The public operators: argument checks, and the choice of who serves a call.

Letters: N boxes, K regions, B images, C channels, H W feature size, h w output size. Boxes are xyxy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from det_ops import reference

PoolMode = Literal["avg", "max"]


@dataclass(frozen=True)
class OpStatus:
    """Who serves an operator, and what would make it faster. remedy is empty where nothing is amiss."""

    name: str
    served_by: str
    remedy: str = ""


@cache
def _torchvision() -> ModuleType | None:
    """torchvision's operators, or None where torchvision is missing or does not fit the torch that runs."""
    try:
        import torchvision.ops
    except Exception:  # a torchvision built for another torch fails in many ways: none may cost the reference
        return None
    return torchvision.ops


def status() -> list[OpStatus]:
    """Who serves each operator in this process."""
    peer = _torchvision() is not None
    remedy = "" if peer else "install the torchvision release that matches your torch; the reference is much slower"
    served = "torchvision" if peer else "reference (plain PyTorch)"
    return [OpStatus(name, served, remedy) for name in ("nms", "batched_nms", "roi_align")]


def _check_boxes(boxes: Tensor, scores: Tensor) -> None:
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes have shape {tuple(boxes.shape)}, expected (N, 4)")
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores have shape {tuple(scores.shape)}, expected ({boxes.shape[0]},) to match boxes")


def nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int = 0) -> Tensor:
    """Greedy non-maximum suppression.

    Boxes go in stable descending order of score; a box is suppressed if its IoU with a kept one is strictly greater
    than `threshold`, which is rounded to the precision of the computation first (so that an IoU equal to it never
    suppresses). `offset` 1 is the inclusive-pixel convention of 2019. A 0/0 IoU suppresses nothing.

    Args:
        boxes: (N, 4) floating point, xyxy.
        scores: (N,).
        threshold: IoU above which the lower-scored box goes.
        offset: 0, or 1 to add one pixel to every width and height.

    Returns:
        (n,) int64 indices of the kept boxes, best first.

    Raises:
        ValueError: for shapes other than these.
    """
    _check_boxes(boxes, scores)
    peer = _torchvision()
    if peer is not None and offset == 0 and boxes.dtype in (torch.float32, torch.float64):
        keep: Tensor = peer.nms(boxes, scores.to(boxes.dtype), _rounded(threshold, boxes.dtype))
        return keep
    return reference.nms(boxes, scores, threshold, offset)


def _rounded(threshold: float, dtype: torch.dtype) -> float:
    """The threshold as the computation's own precision holds it; torchvision compares with the double."""
    return float(torch.tensor(threshold, dtype=torch.float32)) if dtype == torch.float32 else threshold


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression inside each group (class, level, image), exactly.

    No coordinate offsets are used, so groups never mix and nothing is rounded.

    Args:
        boxes: (N, 4) floating point, xyxy.
        scores: (N,).
        groups: (N,) integer.
        threshold: as in `nms`.

    Returns:
        (n,) int64 indices of the kept boxes of all groups, in stable descending order of score.

    Raises:
        ValueError: for shapes other than these.
    """
    _check_boxes(boxes, scores)
    if groups.shape != scores.shape:
        raise ValueError(f"groups have shape {tuple(groups.shape)}, expected {tuple(scores.shape)} to match scores")
    if boxes.shape[0] == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    # One stable sort by group makes each group a slice, with its members in their first order.
    order = torch.sort(groups, stable=True).indices
    sizes = torch.unique_consecutive(groups[order], return_counts=True)[1].tolist()
    kept = torch.cat([part[nms(boxes[part], scores[part], threshold)] for part in order.split(sizes)])
    kept = kept.sort().values  # ascending, so that the stable sort breaks ties by lower index
    return kept[torch.sort(scores[kept], descending=True, stable=True).indices]


def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    scale: float,
    sampling: int = 0,
    aligned: bool = True,
    mode: PoolMode = "avg",
) -> Tensor:
    """RoIAlign (He et al., Mask R-CNN, 2017, section 3).

    Args:
        features: (B, C, H, W).
        rois: (K, 5) as (image index, x1, y1, x2, y2) in input pixels.
        output_size: (h, w).
        scale: feature pixels per input pixel.
        sampling: samples per bin and axis; 0 = as many as the bin is long (rounded up).
        aligned: shift by half a feature pixel, so that pixel centres lie at integers.
        mode: average or maximum of a bin's samples.

    Returns:
        (K, C, h, w), differentiable in `features` only.

    Raises:
        ValueError: for other shapes, a size or scale that is not positive, or an image index outside 0..B-1.
    """
    if features.dim() != 4:
        raise ValueError(f"features have shape {tuple(features.shape)}, expected (B, C, H, W)")
    if rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(f"rois have shape {tuple(rois.shape)}, expected (K, 5)")
    if min(output_size) < 1 or not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"output_size {output_size} and scale {scale} must be positive")
    if rois.device.type == "cpu" and rois.shape[0]:
        index = rois[:, 0]
        if not bool(((index >= 0) & (index < features.shape[0])).all()):
            raise ValueError(f"rois name an image outside 0..{features.shape[0] - 1}")
    peer = _torchvision()
    if peer is not None and mode == "avg":
        # Coordinates in half precision would be off by whole pixels, and torchvision wants one dtype for both.
        real = reference.compute_dtype(features.dtype)
        pooled: Tensor = peer.roi_align(features.to(real), rois.to(real), output_size, scale, sampling or -1, aligned)
        return pooled.to(features.dtype)
    return reference.roi_align(features, rois, output_size, scale, sampling, aligned, mode)
