"""Position-sensitive deformable RoI pooling. Letters: K regions, B images, C channels, H W feature, h w output size."""

from __future__ import annotations

from torch import Tensor

from det_ops import checks
from det_ops.memory_format import empty_maps
from det_ops.reference import pooling as reference
from det_ops.registration import derivative, operator


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

    Regions are rounded to whole pixels, inclusive, and are at least 0.1 feature pixels large. A bin averages samples x
    samples points at the left edges of its cells; points outside -0.5 .. size - 0.5 are not counted.

    Args:
        features: (B, channels * group_size ** 2, H, W) floating point.
        rois: (K, 5) as (image index, x1, y1, x2, y2) in input pixels.
        offset: (K, 2 * classes, part, part) as (x, y) of each class, or None for no shift; classes divides channels.
        output_size: (h, w).
        scale: Feature pixels per input pixel.
        channels: C of the result.
        group_size: Bins of the position-sensitive maps along each axis.
        part_size: Bins of the offsets along each axis; None for h.
        samples: Points per bin and axis.
        gamma: Fraction of the region's size by which an offset of 1 shifts.

    Returns:
        (K, channels, h, w), differentiable in features and offset.

    Raises:
        ValueError: for other shapes, or a size or scale that is not positive.
        TypeError: for features or rois that are not floating point.
        RuntimeError: on the CPU, for an image index outside 0..B-1.
    """
    checks.check_features(features)
    checks.check_pooling(rois, output_size, scale)
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
    bins = group_size, part, samples
    return _deform_psroi_pool(features, rois.detach(), offset, output_size, scale, channels, *bins, gamma)


_deform_psroi_pool = operator(
    "deform_psroi_pool",
    reference.deform_psroi_pool,
    fake=lambda features, rois, offset, size, _, channels, *__: empty_maps(features, (rois.shape[0], channels, *size)),
)
derivative(
    "deform_psroi_pool",
    of=("features", "offset"),
    omitted={"size": lambda grad: grad.shape[2:], "channels": lambda grad: grad.shape[1]},
    unordered=True,
)
