"""Resampling of masks between the image and the fixed size of a mask head.

Letters: n objects, p regions, S side of a head's mask, h w image size. Boxes are xyxy.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

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


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Paste the masks of regions into the image.

    Probabilities are sampled bilinearly at pixel centres, 0 outside the region, and compared with >=.

    Args:
        masks: (n, S, S) probabilities.
        boxes: (n, 4) in pixels of the image.
        size: (height, width) of the image.
        threshold: minimum probability of a pixel of the object.

    Returns:
        (n, height, width) bool.
    """
    height, width = size
    out = torch.zeros((len(masks), height, width), dtype=torch.bool, device=masks.device)
    corners = torch.stack([boxes[:, :2].floor() - 1, boxes[:, 2:].ceil() + 1], 1).long().tolist() if len(boxes) else []
    for i, ((left, top), (right, bottom)) in enumerate(corners):
        left, right = max(left, 0), min(right, width)
        top, bottom = max(top, 0), min(bottom, height)
        x1, y1, x2, y2 = boxes[i].unbind()
        if left >= right or top >= bottom or not (x2 > x1 and y2 > y1):
            continue
        x = torch.arange(left, right, device=boxes.device, dtype=masks.dtype) + 0.5
        y = torch.arange(top, bottom, device=boxes.device, dtype=masks.dtype) + 0.5
        x, y = (x - x1) / (x2 - x1) * 2 - 1, (y - y1) / (y2 - y1) * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None].to(masks.dtype)
        sampled = F.grid_sample(masks[i][None, None], grid, align_corners=False)[0, 0]
        out[i, top:bottom, left:right] = sampled >= threshold
    return out


def paste_resized_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Paste the masks of regions into the image as Detectron and torchvision do.

    The mask is padded with zeros and its box is enlarged accordingly. The box's corners are truncated to whole pixels,
    both inclusive; the mask is resized to that many pixels and compared with >. Masks are (n, S, S), the result is
    (n, height, width) bool; all arguments are as in `paste_masks`.
    """
    height, width = size
    side = masks.shape[-1]
    out = torch.zeros((len(masks), height, width), dtype=torch.bool, device=masks.device)
    middle, half = (boxes[:, :2] + boxes[:, 2:]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * (0.5 * ((side + 2) / side))
    corners = torch.cat([middle - half, middle + half], 1).long().tolist()
    padded = F.pad(masks, (1, 1, 1, 1))
    for i, (x1, y1, x2, y2) in enumerate(corners):
        cells = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        left, right = max(x1, 0), min(x2 + 1, width)
        top, bottom = max(y1, 0), min(y2 + 1, height)
        if left >= right or top >= bottom:
            continue
        resized = F.interpolate(padded[i][None, None], cells, mode="bilinear", align_corners=False)[0, 0]
        out[i, top:bottom, left:right] = resized[top - y1 : bottom - y1, left - x1 : right - x1] > threshold
    return out


PASTE = {"sampled": paste_masks, "resized": paste_resized_masks}
