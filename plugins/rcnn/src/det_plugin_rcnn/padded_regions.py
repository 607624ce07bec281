"""Regions and detections of a RoI head in tensors of fixed size: what `pooling` and `detections` do, for export.

Letters: N images, P proposals and D detections of each image, K foreground classes, C channels, h w pooled size, S side
of a mask. Boxes are xyxy in pixels of the padded network input unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from attrs import evolve, frozen
from torch import Tensor

from det_core.contracts import RoIPool, Trunk
from det_core.model.candidates import rows_of_images
from det_core.model.padded_detection import (
    PaddedChoice,
    choose_classes,
    inside_images,
    padded_detections,
    to_network_images,
    to_original_images,
)
from det_core.padded import PaddedBatch, PaddedDetections
from det_core.structures import full_precision
from det_plugin_rcnn.config import RegionHeadConfig
from det_plugin_rcnn.mask_branch import of_class, paste_of


@frozen(eq=False)
class PaddedFound:
    """Detections without masks: boxes (N, D, 4) in network pixels, and the detections in original pixels."""

    boxes: Tensor
    detections: PaddedDetections

    def with_masks(self, probabilities: Tensor, config: RegionHeadConfig) -> PaddedDetections:
        """The detections with masks (N * D, S, S)."""
        return evolve(
            self.detections,
            masks=probabilities.unflatten(0, (-1, self.boxes.shape[1])),
            paste=paste_of(config),
        )


def padded_rois(boxes: Tensor) -> Tensor:
    """(N * P, 5) rois (image index, x1, y1, x2, y2) from the boxes (N, P, 4) of each image."""
    index = torch.arange(boxes.shape[0], dtype=boxes.dtype, device=boxes.device)[:, None, None]
    return torch.cat([index.expand(-1, boxes.shape[1], -1), boxes], 2).flatten(0, 1)


def pool_padded(features: Sequence[Tensor], boxes: Tensor, roi_pool: RoIPool, trunk: Trunk | None = None) -> Tensor:
    """The regions (N * P, C, h, w) of the boxes (N, P, 4), after the shared trunk if there is one."""
    regions: Tensor = roi_pool(features, padded_rois(boxes))
    return regions if trunk is None else trunk(regions)


def mask_regions_padded(
    features: Sequence[Tensor], boxes: Tensor, roi_pool: RoIPool, trunk: Trunk | None, mask_roi_pool: RoIPool | None
) -> Tensor:
    """The mask heads' input (N * D, C, h, w): their own pooling, or the box branch's."""
    if mask_roi_pool is None:
        return pool_padded(features, boxes, roi_pool, trunk)
    return pool_padded(features, boxes, mask_roi_pool)


def choose_padded(
    boxes: Tensor,
    scores: Tensor,
    valid: Tensor,
    batch: PaddedBatch,
    config: RegionHeadConfig,
    *,
    original: bool = False,
) -> PaddedFound:
    """As `choose_detections`, in tensors of fixed size.

    Args:
        boxes: (N, P, K, 4), or (N, P, 4) if class-agnostic, clipped; in network pixels, or with `original` in original.
        scores: (N * P, K) probabilities.
        valid: (N, P) bool, which regions are not padding.
        batch: of the images.
        config: thresholds.
    """
    shared = boxes.dim() == 3
    scores = scores.unflatten(0, (-1, valid.shape[1]))
    high = (scores > config.score_threshold) & valid[..., None]
    if config.min_size and not original:
        large = ((boxes[..., 2:] - boxes[..., :2]) >= config.min_size).all(-1)
        high = high & (large[..., None] if shared else large)
    network = config.nms_in == "network" or original  # boxes are in the pixels of NMS
    placed = boxes if network else to_original_images(boxes, batch)
    chosen = choose_classes(placed, torch.where(high, scores, -math.inf), config)
    own = _chosen_boxes(boxes, chosen)
    if original:
        there, own = own, to_network_images(own, batch)
    else:
        there = to_original_images(own, batch) if network else _chosen_boxes(placed, chosen)
    if not config.clip_original:
        return PaddedFound(own, padded_detections(there, chosen))
    numbers = torch.arange(own.shape[1], device=own.device).expand(own.shape[0], -1)
    clipped, kept = inside_images(there, evolve(chosen, rows=numbers), batch)
    return PaddedFound(rows_of_images(own, kept.rows), padded_detections(clipped, kept))


def _chosen_boxes(boxes: Tensor, chosen: PaddedChoice) -> Tensor:
    """(N, D, 4): of boxes (N, P, K, 4) those of the chosen regions and classes; of (N, P, 4) those of the regions."""
    if boxes.dim() == 3:
        return rows_of_images(boxes, chosen.rows)
    return rows_of_images(boxes.flatten(1, 2), chosen.rows * boxes.shape[2] + chosen.labels)


def mean_masks_padded(logits: Sequence[Tensor], found: PaddedFound) -> Tensor:
    """(N * D, S, S): the mean of the sigmoids of logits (N * D, K, S, S), of each detection's class."""
    labels = found.detections.labels.flatten().clamp(min=0)
    return torch.stack([full_precision(of_class(x, labels)).sigmoid() for x in logits]).mean(0)
