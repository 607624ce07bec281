"""Pool boxes to the regions that box and mask heads take.

Letters: N images, R regions of all images, r regions of one image, p positives among R, C channels, h w pooled size.
Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from det_core.contracts import RoIPool, Trunk
from det_core.model.layers import to_rois
from det_core.model.sample_regions import SampledRegions, positive_rows


def pool_regions(
    features: Sequence[Tensor], boxes: Sequence[Tensor], roi_pool: RoIPool, trunk: Trunk | None = None
) -> Tensor:
    """The regions (R, C, h, w) of each image's boxes (r, 4) in order, after the shared trunk if there is one."""
    regions: Tensor = roi_pool(features, to_rois(list(boxes)))
    return regions if trunk is None else trunk(regions)


def mask_regions(
    features: Sequence[Tensor],
    boxes: Sequence[Tensor],
    roi_pool: RoIPool,
    trunk: Trunk | None,
    mask_roi_pool: RoIPool | None,
) -> Tensor:
    """The mask heads' input (R, C, h, w) for each image's boxes (r, 4): their own pooling, or the box branch's."""
    if mask_roi_pool is None:
        return pool_regions(features, boxes, roi_pool, trunk)
    return pool_regions(features, boxes, mask_roi_pool)


def positive_regions(
    features: Sequence[Tensor], sampled: Sequence[SampledRegions], regions: Tensor, mask_roi_pool: RoIPool | None
) -> Tensor:
    """The mask head's input in training, (p, C, h, w): its own pooling, or the positive ones of `regions`.

    regions: (R, C, h, w) of the box branch, of all sampled boxes.
    """
    if mask_roi_pool is not None:
        return pool_regions(features, [s.positive for s in sampled], mask_roi_pool)
    return positive_rows(regions, sampled)
