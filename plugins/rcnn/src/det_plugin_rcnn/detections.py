"""Select detections from the boxes and scores of a RoI head.

Letters: r regions of one image, n detections of one image, K foreground classes, S side of a mask.
Boxes are xyxy, in pixels of the padded network input unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import evolve, frozen
from torch import Tensor

from det_core.compressed_masks import RegionMasks
from det_core.model.postprocess import Chosen, class_wise_nms, inside_original, to_network, to_original
from det_core.structures import Detections, ImageInfo
from det_plugin_rcnn.config import RegionHeadConfig


@frozen(eq=False)
class Found:
    """One image's detections without masks: boxes (n, 4) in network pixels, and `chosen` in original pixels."""

    boxes: Tensor
    chosen: Chosen

    def __len__(self) -> int:
        return len(self.boxes)


def choose_detections(boxes: Tensor, scores: Tensor, info: ImageInfo, config: RegionHeadConfig) -> Found:
    """Select one image's detections: discard small boxes and low scores, then apply NMS within each class.

    Args:
        boxes: (r, K, 4), or (r, 4) if class-agnostic; network pixels, clipped to the image.
        scores: (r, K) probabilities.
        info: of the image.
        config: thresholds.
    """
    shared = boxes.dim() == 2
    if config.min_size:
        large = ((boxes[..., 2:] - boxes[..., :2]) >= config.min_size).all(-1)  # (r,) or (r, K)
        scores = scores.where(large[:, None] if shared else large, scores.new_tensor(-1.0))
    chosen = class_wise_nms(boxes if config.nms_in == "network" else to_original(boxes, info), scores, config)
    if config.nms_in == "network":
        found = Found(chosen.boxes, evolve(chosen, boxes=to_original(chosen.boxes, info)))
    else:
        found = Found(boxes[chosen.rows] if shared else boxes[chosen.rows, chosen.labels], chosen)
    return inside(found, info) if config.clip_original else found


def choose_original(boxes: Tensor, scores: Tensor, info: ImageInfo, config: RegionHeadConfig) -> Found:
    """As `choose_detections`, of boxes (r, K, 4) or (r, 4) in original pixels; none is too small."""
    chosen = class_wise_nms(boxes, scores, config)
    return Found(to_network(chosen.boxes, info), chosen)


def inside(found: Found, info: ImageInfo) -> Found:
    """One image's detections clipped to the original image, without those that have no area there."""
    boxes, real = inside_original(found.chosen.boxes, info)
    at, chosen = real.nonzero().flatten(), found.chosen
    kept = Chosen(boxes[at], chosen.scores[at], chosen.labels[at], chosen.rows[at])
    return Found(found.boxes[at], kept)


def found_labels(found: Sequence[Found]) -> Tensor:
    """(R,) int64: the classes of all images' detections, in order."""
    return torch.cat([f.chosen.labels for f in found])


def to_detections(found: Sequence[Found], masks: Sequence[RegionMasks] | None = None) -> list[Detections]:
    """Detections in original pixels, with each image's masks if given."""
    given: Sequence[RegionMasks | None] = [None] * len(found) if masks is None else masks
    return [
        Detections(boxes=f.chosen.boxes, scores=f.chosen.scores, labels=f.chosen.labels, masks=m)
        for f, m in zip(found, given, strict=True)
    ]
