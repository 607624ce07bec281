"""Select detections from the boxes and scores of a RoI head.

Letters: R regions of all images, r regions of one image, K foreground classes. Boxes are xyxy, in pixels of the padded
network input unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from det_core.model.postprocess import Chosen, Pairs, choose
from det_core.structures import ImageInfo
from det_plugin_rcnn.config import RegionHeadConfig


def choose_detections(
    boxes: Sequence[Tensor],
    scores: Tensor,
    infos: Sequence[ImageInfo],
    config: RegionHeadConfig,
    *,
    original: bool = False,
) -> Chosen:
    """Select the detections of all images: discard small boxes and low scores, then apply NMS within each class.

    Args:
        boxes: (r, K, 4) of each image, or (r, 4) if class-agnostic; clipped to the image.
        scores: (R, K) probabilities.
        infos: of the images.
        config: thresholds.
        original: whether the boxes are in pixels of the original images; then none is too small.
    """
    high = scores > config.score_threshold
    if config.min_size and not original:
        large = torch.cat([((own[..., 2:] - own[..., :2]) >= config.min_size).all(-1) for own in boxes])
        high &= large[:, None] if large.dim() == 1 else large
    return choose(Pairs.where(high, boxes, scores), infos, config, original=original)
