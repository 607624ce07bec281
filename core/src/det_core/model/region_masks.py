"""The targets of a mask head.

Letters: n objects, p regions, h w image size. Boxes are xyxy.
"""

from __future__ import annotations

import torch
from torch import Tensor

import det_ops
from det_core.compressed_masks import CompressedMasks

CHUNK = 1 << 25  # maximum mask pixels held as floats at once


def mask_targets(masks: Tensor | CompressedMasks, objects: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The target of a mask head for each region: its object's mask, cropped to the region and resampled.

    Applies RoIAlign with scale 1 and adaptive sampling to the bitmap, then compares with >= 0.5.

    Args:
        masks: compressed, of which only what the regions read is decoded, or bitmaps (n, h, w) uint8 or bool.
        objects: (p,) int64, the object of each region.
        boxes: (p, 4) in pixels of the masks.
        size: (height, width) of the result.

    Returns:
        (p, height, width) of the boxes' dtype, 0 or 1.
    """
    if isinstance(masks, CompressedMasks):
        source = (masks.codes, masks.offsets, masks.stored_size, masks.rows, masks.columns)
        return det_ops.mask_targets(*source, objects, boxes, size)
    result = boxes.new_zeros((len(boxes), *size))
    used, position = torch.unique(objects, return_inverse=True)
    per_chunk = max(1, CHUNK // max(1, masks.shape[1] * masks.shape[2]))
    for start in range(0, len(used), per_chunk):
        at = ((position >= start) & (position < start + per_chunk)).nonzero().flatten()
        bitmaps = masks[used[start : start + per_chunk], None].to(boxes.dtype)
        rois = torch.cat([(position[at] - start)[:, None].to(boxes.dtype), boxes[at]], 1)
        result[at] = (det_ops.roi_align(bitmaps, rois, size, 1.0)[:, 0] >= 0.5).to(boxes.dtype)
    return result
