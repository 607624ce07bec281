"""The mask loss, and the masks of detections (He et al., Mask R-CNN, 2017, section 3).

Letters: R regions, p positives, n detections of all images, K foreground classes, S side of a mask.
Boxes are xyxy in pixels of the padded network input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from det_core.compressed_masks import CompressedMasks, RegionMasks
from det_core.contracts import Loss
from det_core.model.postprocess import Chosen
from det_core.model.region_masks import MaskTargetRule, mask_targets
from det_core.model.sample_regions import SampledRegions
from det_core.padded import MaskPaste
from det_core.structures import ImageInfo, LossTerm, Targets
from det_plugin_rcnn.config import RegionHeadConfig


def mask_term(
    loss: Loss,
    logits: Tensor,
    sampled: Sequence[SampledRegions],
    targets: Sequence[Targets],
    rule: MaskTargetRule = "sampled",
) -> LossTerm:
    """The loss of logits (p, K, S, S) on the positive regions: mean over pixels, normalised by the number of regions.

    Only the mask of a region's class is compared with its object's mask. ValueError if the targets have no masks.
    """
    labels = torch.cat([s.positive_labels for s in sampled])
    height, width = logits.shape[-2:]
    expected = torch.cat(
        [
            mask_targets(_masks_of(t), s.objects, s.positive, (height, width), rule)
            for s, t in zip(sampled, targets, strict=True)
        ]
    )
    term = loss(of_class(logits, labels), expected, float(len(labels)))
    return LossTerm(term.total / (height * width), term.count)


def of_class(masks: Tensor, labels: Tensor) -> Tensor:
    """(R, K, S, S) masks to (R, S, S): those of each region's class (R,), or the only mask if K is 1."""
    if masks.shape[1] == 1:
        return masks[:, 0]
    return masks[torch.arange(labels.shape[0], device=masks.device), labels]


def region_masks(
    probabilities: Tensor, found: Chosen, infos: Sequence[ImageInfo], config: RegionHeadConfig
) -> list[RegionMasks]:
    """Per image the masks of its detections, from (n, S, S) of the n detections of all images."""
    paste = paste_of(config)
    rows = zip(found.of_images(probabilities), found.of_images(found.boxes), infos, strict=True)
    return [paste.masks(own, boxes, info.original_size) for own, boxes, info in rows]


def paste_of(config: RegionHeadConfig) -> MaskPaste:
    """How masks become those of the image."""
    rule = "resized" if config.mask_paste == "padded" else config.mask_paste
    return MaskPaste(rule=rule, threshold=config.mask_threshold, last_pixel=config.mask_paste == "padded")


def _masks_of(target: Targets) -> Tensor | CompressedMasks:
    if target.masks is None:
        raise ValueError("the mask head requires masks, but the targets have none; load the data set with masks=True")
    return target.masks
