"""RoIPool. Letters: K regions, B images, C channels, H W feature size, h w output size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from det_ops import checks
from det_ops.memory_format import empty_maps, memory_format_of, named_format
from det_ops.reference import pooling as reference
from det_ops.reference.precision import compute_dtype, full
from det_ops.registration import gradient, operator


def roi_pool(features: Tensor, rois: Tensor, output_size: tuple[int, int], scale: float) -> Tensor:
    """RoIPool (Girshick, Fast R-CNN, 2015, section 2.1), with the unrounded edges of 2019's detectors.

    A region extends from x1 * scale to (x2 + 1) * scale. A bin covers the pixels from the floor of its start to the
    ceiling of its end. torchvision's definition differs: it rounds the edges first.

    Args:
        features: (B, C, H, W) floating point.
        rois: (K, 5) as (image index, x1, y1, x2, y2) in input pixels.
        output_size: (h, w).
        scale: Feature pixels per input pixel.

    Returns:
        (K, C, h, w): the maximum of each bin (the first of equals), 0 for an empty one.

    Raises:
        ValueError: for other shapes, or a size or scale that is not positive.
        TypeError: for features or rois that are not floating point.
        RuntimeError: on the CPU, for an image index outside 0..B-1.
    """
    checks.check_features(features)
    checks.check_pooling(rois, output_size, scale)
    return _roi_pool(features, rois.detach(), output_size, scale)[0]


def _fake(features: Tensor, rois: Tensor, size: Sequence[int], scale: float) -> tuple[Tensor, Tensor]:
    pooled = empty_maps(features, (rois.shape[0], features.shape[1], *size))
    return pooled, torch.empty_like(pooled, dtype=torch.int64)


_roi_pool = operator("roi_pool", reference.roi_pool, fake=_fake)


def _reference_backward(
    grad: Tensor, positions: Tensor, rois: Tensor, shape: Sequence[int], channels_last: bool
) -> Tensor:
    images, channels, height, width = shape
    result = torch.zeros((images, channels, height * width), dtype=compute_dtype(grad.dtype), device=grad.device)
    image = rois[:, 0].long()[:, None, None].expand(-1, channels, grad.shape[2] * grad.shape[3])
    channel = torch.arange(channels, device=grad.device)[None, :, None].expand_as(image)
    at, known = positions.flatten(2), positions.flatten(2) >= 0
    result.index_put_((image[known], channel[known], at[known]), full(grad).flatten(2)[known], accumulate=True)
    return result.to(grad.dtype).view(tuple(shape)).contiguous(memory_format=named_format(channels_last))


_roi_pool_backward = operator(
    "roi_pool_backward",
    _reference_backward,
    fake=lambda grad, positions, rois, shape, channels_last: empty_maps(grad, shape, channels_last),
)


def _save(inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> tuple[Any, ...]:
    features, rois, _, _ = inputs
    return output[1], rois, list(features.shape), memory_format_of(features) is torch.channels_last


@gradient("roi_pool", save=_save, unordered=True)
def _gradients(grad: Tensor, *saved: Any) -> tuple[Tensor]:
    return (_roi_pool_backward(grad, *saved),)
