"""Test-time augmentation: detect on several scales and on the mirrored image, and merge the detections.

Letters: n detections, h w original image size. Boxes are xyxy in pixels of the original image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import evolve, field, frozen, validators
from torch import Tensor

import det_ops
from det_core import settings
from det_core.compressed_masks import RegionMasks
from det_core.data.data_config import FlipConfig, ResizeConfig
from det_core.errors import DetError
from det_core.slots import TransformConfig
from det_core.structures import Detections


@frozen(kw_only=True)
class Augmentation:
    """The views of each image, and the settings of the NMS per class that merges their detections.

    scales: (long edge, short edge) of the views; empty: the recipe's scale. flip: also mirror each view.
    nms_threshold: IoU above which a detection is suppressed. max_detections: maximum per image, over all views.
    """

    scales: tuple[tuple[int, int], ...] = ()
    flip: bool = False
    nms_threshold: float = field(default=0.5, validator=[validators.ge(0), validators.le(1)])
    max_detections: int = field(default=100, validator=validators.ge(1))

    def views(self, transforms: Sequence[TransformConfig]) -> list[tuple[tuple[TransformConfig, ...], bool]]:
        """The transforms of each view, given the test transforms, and whether it is mirrored.

        Raises:
            DetError: if `scales` is set and the transforms have no resize.
        """
        plain = [tuple(transforms)]
        if self.scales:
            resizes = [(i, t) for i, t in enumerate(transforms) if isinstance(t, ResizeConfig)]
            if not resizes:
                kinds = ", ".join(t.type for t in transforms) or "none"
                raise DetError(
                    f"scales need a resize among the test transforms, found {kinds}; add one, or do not set scales"
                )
            at, resize = resizes[0]
            plain = [
                (*transforms[:at], settings.evolve(resize, scales=(s,)), *transforms[at + 1 :]) for s in self.scales
            ]
        mirror = FlipConfig(probability=1.0)
        return [(view, False) for view in plain] + [((*view, mirror), True) for view in plain if self.flip]


def unflip(found: Detections, width: int) -> Detections:
    """Convert detections of the mirrored image, `width` pixels wide, to the image."""
    boxes = found.boxes[:, [2, 1, 0, 3]]
    boxes = torch.stack([width - boxes[:, 0], boxes[:, 1], width - boxes[:, 2], boxes[:, 3]], 1)
    if found.region_masks is not None:
        return evolve(found, boxes=boxes, masks=found.region_masks.mirrored())
    return evolve(found, boxes=boxes, masks=None if found.masks is None else found.masks.flip(-1))


def merge(views: Sequence[Detections], augmentation: Augmentation) -> Detections:
    """Merge the detections of an image's views with NMS per class."""
    together = Detections(
        boxes=torch.cat([v.boxes for v in views]),
        scores=torch.cat([v.scores for v in views]),
        labels=torch.cat([v.labels for v in views]),
        masks=_joined_masks(views),
    )
    kept = det_ops.batched_nms(together.boxes, together.scores, together.labels, augmentation.nms_threshold)
    return together[kept[: augmentation.max_detections]]


def _joined_masks(views: Sequence[Detections]) -> Tensor | RegionMasks | None:
    """The masks of all views, None unless each has some; bitmaps if a view has them."""
    regions = [v.region_masks for v in views if v.region_masks is not None]
    if len(regions) == len(views):
        return RegionMasks.joined(regions)
    bitmaps = [v.masks for v in views if v.masks is not None]
    return torch.cat(bitmaps) if len(bitmaps) == len(views) else None
