"""The objects of an image in a window of it: what crops and mosaics keep.

Letters: n objects, k kept ones, h w size of the image.
"""

from __future__ import annotations

import attrs
import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from det_core.compressed_masks import CompressedMasks
from det_core.contracts import Sample
from det_core.data.mask_patches import Patch, bitmaps_of_patches, masks_of, patches_of
from det_core.data.placement import Crop, areas


@frozen(eq=False)
class Objects:
    """kept: (k,) int64, which objects of the image. boxes: (k, 4). patches: their k masks, or None without masks."""

    kept: Tensor
    boxes: Tensor
    patches: list[Patch] | None


def objects_in(sample: Sample, window: Crop, move: tuple[int, int], min_visible: float) -> Objects:
    """The objects in a window (x1, y1, x2, y2) of an image, moved by (x, y) pixels.

    An object that the window cuts has the box of what is left of its mask, or without masks of its box. It is dropped
    if less than `min_visible` of it is left, or nothing.
    """
    x1, y1, x2, y2 = window
    low, high = sample.boxes.new_tensor([x1, y1]), sample.boxes.new_tensor([x2, y2])
    boxes = torch.cat([sample.boxes[:, :2].maximum(low), sample.boxes[:, 2:].minimum(high)], dim=1)
    cut = (boxes != sample.boxes).any(dim=1)
    visible = areas(boxes) / areas(sample.boxes).clamp(min=1e-9)
    patches = None
    if sample.masks is not None:
        whole = patches_of(sample.masks)
        patches = [_within(patch, window) for patch in whole]
        before, left = (torch.tensor([float(p.area()) for p in of]) for of in (whole, patches))
        visible = torch.where(before > 0, left / before.clamp(min=1), visible)
        for number in cut.nonzero().flatten().tolist():
            if before[number]:
                boxes[number] = torch.tensor(patches[number].box(), dtype=boxes.dtype)
    kept = ((areas(boxes) > 0) & (visible > 0) & (visible >= min_visible) | ~cut).nonzero().flatten()
    shift = boxes.new_tensor([*move, *move])
    moved = None if patches is None else [_moved(patches[i], move) for i in kept.tolist()]
    return Objects(kept, boxes[kept] + shift, moved)


def with_objects(sample: Sample, parts: list[tuple[Sample, Objects]], size: tuple[int, int]) -> Sample:
    """The sample with the kept objects of several ones, in an image of (height, width)."""
    compressed = isinstance(sample.masks, CompressedMasks)
    masks = None
    if all(objects.patches is not None for _, objects in parts):
        patches = [patch for _, objects in parts for patch in objects.patches or ()]
        masks = (masks_of if compressed else bitmaps_of_patches)(patches, size)
    return attrs.evolve(
        sample,
        boxes=torch.cat([objects.boxes for _, objects in parts]),
        labels=torch.cat([of.labels[objects.kept] for of, objects in parts]),
        ignored=torch.cat([of.ignored[objects.kept] for of, objects in parts]),
        masks=masks,
    )


def _within(patch: Patch, window: Crop) -> Patch:
    """The part of a patch in a window."""
    x1, y1, x2, y2 = window
    height, width = patch.bits.shape
    top, left = min(max(y1 - patch.top, 0), height), min(max(x1 - patch.left, 0), width)
    bottom, right = max(min(y2 - patch.top, height), top), max(min(x2 - patch.left, width), left)
    bits = patch.bits[top:bottom, left:right]
    if bits.size == 0:
        return Patch(y1, x1, np.zeros((0, 0), np.bool_))
    return Patch(patch.top + top, patch.left + left, bits)


def _moved(patch: Patch, move: tuple[int, int]) -> Patch:
    return Patch(patch.top + move[1], patch.left + move[0], patch.bits)
