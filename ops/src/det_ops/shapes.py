"""What each operator returns without data: shapes, dtypes and strides, for tracing and export.

Letters: N boxes, K regions, B images, C channels, H W feature size, h w output size, O output channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from det_ops.operators import LIBRARY, layout_of
from det_ops.reference.precision import compute_dtype

Shapes = TypeVar("Shapes", bound=Callable[..., Any])


def _fake(name: str) -> Callable[[Shapes], Shapes]:
    register: Callable[[Shapes], Shapes] = torch.library.register_fake(f"det::{name}", lib=LIBRARY)
    return register


def _dynamic() -> Any:
    """A length that only the data tell."""
    return torch.library.get_ctx().new_dynamic_size()


def _maps(like: Tensor, shape: Sequence[Any]) -> Tensor:
    """An empty result of this shape in the layout of `like`."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout_of(like))


@_fake("nms")
def _nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> Tensor:
    return boxes.new_empty(_dynamic(), dtype=torch.int64)


@_fake("batched_nms")
def _batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    return boxes.new_empty(_dynamic(), dtype=torch.int64)


@_fake("nms_padded")
def _nms_padded(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, max_out: int) -> tuple[Tensor, Tensor]:
    return boxes.new_empty(max_out, dtype=torch.int64), boxes.new_empty((), dtype=torch.int64)


@_fake("soft_nms")
def _soft_nms(
    boxes: Tensor, scores: Tensor, threshold: float, sigma: float, min_score: float, method: str
) -> tuple[Tensor, Tensor]:
    kept = _dynamic()
    return boxes.new_empty(kept, dtype=torch.int64), scores.new_empty(kept)


@_fake("box_overlaps")
def _box_overlaps(boxes: Tensor, others: Tensor, mode: str, aligned: bool, offset: int) -> Tensor:
    shape = (boxes.shape[0],) if aligned else (boxes.shape[0], others.shape[0])
    return boxes.new_empty(shape, dtype=compute_dtype(boxes.dtype))


@_fake("max_iou_assign")
def _max_iou_assign(
    boxes: Tensor,
    objects: Tensor,
    positive: float,
    negative: float,
    min_positive: float,
    low_quality: bool,
    all_ties: bool,
) -> tuple[Tensor, Tensor]:
    count = boxes.shape[0]
    return boxes.new_empty(count, dtype=torch.int64), boxes.new_empty(count, dtype=compute_dtype(boxes.dtype))


@_fake("roi_align")
def _roi_align(
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor,
    size: Sequence[int],
    scales: Sequence[float],
    sampling: int,
    alignment: str,
    mode: str,
) -> Tensor:
    return _maps(features[0], (rois.shape[0], features[0].shape[1], *size))


@_fake("roi_align_backward")
def _roi_align_backward(
    grad: Tensor,
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor,
    shapes: Sequence[int],
    scales: Sequence[float],
    sampling: int,
    alignment: str,
    mode: str,
    channels_last: bool,
) -> list[Tensor]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    starts = range(0, len(shapes), 4)
    return [torch.empty(shapes[i : i + 4], dtype=grad.dtype, device=grad.device, memory_format=layout) for i in starts]


@_fake("roi_pool")
def _roi_pool(features: Tensor, rois: Tensor, size: Sequence[int], scale: float) -> tuple[Tensor, Tensor]:
    pooled = _maps(features, (rois.shape[0], features.shape[1], *size))
    return pooled, torch.empty_like(pooled, dtype=torch.int64)


@_fake("roi_pool_backward")
def _roi_pool_backward(
    grad: Tensor, positions: Tensor, rois: Tensor, shape: Sequence[int], channels_last: bool
) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=layout)


@_fake("deform_roi_pool")
def _deform_roi_pool(
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    size: Sequence[int],
    scale: float,
    sampling: int,
    gamma: float,
) -> Tensor:
    return _maps(features, (rois.shape[0], features.shape[1], *size))


def _pair(features: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor]:
    shift = features.new_empty(0) if offset is None else offset.new_empty(offset.shape)
    return _maps(features, features.shape), shift


@_fake("deform_roi_pool_backward")
def _deform_roi_pool_backward(
    grad: Tensor, features: Tensor, rois: Tensor, offset: Tensor | None, scale: float, sampling: int, gamma: float
) -> tuple[Tensor, Tensor]:
    return _pair(features, offset)


@_fake("deform_psroi_pool")
def _deform_psroi_pool(
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
    return _maps(features, (rois.shape[0], channels, *size))


@_fake("deform_psroi_pool_backward")
def _deform_psroi_pool_backward(
    grad: Tensor,
    features: Tensor,
    rois: Tensor,
    offset: Tensor | None,
    scale: float,
    group: int,
    part: int,
    samples: int,
    gamma: float,
) -> tuple[Tensor, Tensor]:
    return _pair(features, offset)


@_fake("deform_conv2d")
def _deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
) -> Tensor:
    return _maps(x, (x.shape[0], weight.shape[0], offset.shape[2], offset.shape[3]))


@_fake("deform_conv2d_backward")
def _deform_conv2d_backward(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    offset_groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mask_grad = x.new_empty(0) if mask is None else mask.new_empty(mask.shape)
    return _maps(x, x.shape), offset.new_empty(offset.shape), weight.new_empty(weight.shape), mask_grad


@_fake("masked_conv2d")
def _masked_conv2d(x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int]) -> Tensor:
    return _maps(x, (x.shape[0], weight.shape[0], mask.shape[1], mask.shape[2]))


@_fake("sigmoid_focal_loss")
def _sigmoid_focal_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float, summed: bool
) -> Tensor:
    return logits.new_empty(() if summed else logits.shape, dtype=compute_dtype(logits.dtype))


@_fake("sigmoid_focal_loss_backward")
def _sigmoid_focal_loss_backward(
    grad: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, gamma: float, alpha: float
) -> Tensor:
    return logits.new_empty(logits.shape)
