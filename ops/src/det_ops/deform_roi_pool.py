"""Deformable RoI pooling. Letters: K regions, B images, C channels, H W feature size, h w output size."""

from __future__ import annotations

from torch import Tensor

from det_ops import checks
from det_ops.memory_format import empty_maps
from det_ops.reference import pooling as reference
from det_ops.registration import derivative, operator


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
        offset: (K, 2, h, w) as (x, y), or None for no shift.
        output_size: (h, w).
        scale: Feature pixels per input pixel.
        sampling: Samples per bin and axis; 0 = the length of the bin in feature pixels, rounded up.
        gamma: Fraction of the region's size by which an offset of 1 shifts.

    Returns:
        (K, C, h, w), differentiable in features and offset.

    Raises:
        ValueError: for other shapes, or a size or scale that is not positive.
        TypeError: for features, rois or offset that are not floating point.
        RuntimeError: on the CPU, for an image index outside 0..B-1.
    """
    checks.check_features(features)
    checks.check_pooling(rois, output_size, scale)
    checks.check_at_least(sampling, "sampling", 0)
    if offset is not None:
        checks.check_shape(offset, "offset has", (rois.shape[0], 2, *output_size), " as (K, 2, h, w)")
    return _deform_roi_pool(features, rois.detach(), offset, output_size, scale, sampling, gamma)


_deform_roi_pool = operator(
    "deform_roi_pool",
    reference.deform_roi_pool,
    fake=lambda features, rois, offset, size, *_: empty_maps(features, (rois.shape[0], features.shape[1], *size)),
)
derivative("deform_roi_pool", of=("features", "offset"), omitted={"size": lambda grad: grad.shape[2:]}, unordered=True)
