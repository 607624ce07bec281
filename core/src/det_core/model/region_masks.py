"""The targets of a mask head.

Letters: n objects, p regions, h w image size. Boxes are xyxy.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

import det_ops
from det_core.compressed_masks import CompressedMasks, bitmaps_of

MaskTargetRule = Literal["sampled", "quantised"]
CHUNK = 1 << 25  # maximum mask pixels held as floats at once


def mask_targets(
    masks: Tensor | CompressedMasks,
    objects: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    rule: MaskTargetRule = "sampled",
) -> Tensor:
    """The target of a mask head for each region: its object's mask, cropped to the region and resampled.

    "sampled" applies RoIAlign with scale 1 and adaptive sampling to the bitmap, then compares with >= 0.5. If there are
    more bitmaps than `CHUNK` allows, only those that have regions become floats, in chunks, for which a device is
    waited. "quantised", as mmdet 0.x and 1.x do, crops the bitmap to the region's whole pixels and resizes the crop as
    an 8-bit image; this is done on the CPU, region by region.

    Args:
        masks: compressed, of which only what the regions read is decoded, or bitmaps (n, h, w) uint8 or bool.
        objects: (p,) int64, the object of each region.
        boxes: (p, 4) in pixels of the masks.
        size: (height, width) of the result.
        rule: "sampled" or "quantised".

    Returns:
        (p, height, width) of the boxes' dtype, 0 or 1.
    """
    if rule == "quantised":
        return _quantised(masks, objects, boxes, size)
    if isinstance(masks, CompressedMasks):
        source = (masks.codes, masks.offsets, masks.stored_size, masks.rows, masks.columns)
        return det_ops.mask_targets(*source, objects, boxes, size)
    per_chunk = max(1, CHUNK // max(1, masks.shape[1] * masks.shape[2]))
    if len(masks) <= per_chunk:
        return _cropped(masks, objects, boxes, size)
    result = boxes.new_zeros((len(boxes), *size))
    used, position = torch.unique(objects, return_inverse=True)
    for start in range(0, len(used), per_chunk):
        at = ((position >= start) & (position < start + per_chunk)).nonzero().flatten()
        bitmaps = masks[used[start : start + per_chunk]]
        result[at] = _cropped(bitmaps, position[at] - start, boxes[at], size)
    return result


def _cropped(masks: Tensor, objects: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """As `mask_targets`, of bitmaps (n, h, w) that fit into memory as floats."""
    rois = torch.cat([objects[:, None].to(boxes.dtype), boxes], 1)
    return (det_ops.roi_align(masks[:, None].to(boxes.dtype), rois, size, 1.0)[:, 0] >= 0.5).to(boxes.dtype)


def _quantised(masks: Tensor | CompressedMasks, objects: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """As `mask_targets` of the rule "quantised": whole pixels from the first to the last of a region, at least one."""
    result = boxes.new_zeros((len(boxes), *size))
    used, position = torch.unique(objects.cpu(), return_inverse=True)
    bitmaps = bitmaps_of(masks[used.to(objects.device)]).cpu()
    corners = torch.cat([boxes[:, :2], boxes[:, 2:] - 1], 1).cpu().trunc().long().tolist()
    for row, at, (x1, y1, x2, y2) in zip(result, position.tolist(), corners, strict=True):
        crop = bitmaps[at, y1 : max(y2, y1) + 1, x1 : max(x2, x1) + 1].to(torch.uint8)
        row.copy_(det_ops.resize_bilinear(crop[None], size)[0])
    return result
