"""Masks as patches, each the part of an image in which a mask has pixels: transforms compute on them, not on bitmaps.

Letters: n masks, h w size of the image, H W size of the masks as they are stored, b d size of a patch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from det_core.compressed_masks import CompressedMasks, mask_boxes


@frozen(eq=False)
class Patch:
    """bits: (b, d) bool, the pixels of a mask in the rows from `top` and the columns from `left`; it has no others."""

    top: int
    left: int
    bits: NDArray[np.bool_]

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the image."""
        height, width = self.bits.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def area(self) -> int:
        """The number of pixels."""
        return int(self.bits.sum())

    def without(self, covering: NDArray[np.bool_]) -> Patch:
        """The patch without the pixels of an (h, w) bool map."""
        return Patch(self.top, self.left, self.bits & ~covering[self.window])

    def box(self) -> tuple[int, int, int, int]:
        """The box xyxy of the pixels, all 0 if there are none."""
        rows, columns = (np.flatnonzero(self.bits.any(axis=axis)) for axis in (1, 0))
        if len(rows) == 0:
            return 0, 0, 0, 0
        (y1, y2), (x1, x2) = ((int(found[0]), int(found[-1]) + 1) for found in (rows, columns))
        return self.left + x1, self.top + y1, self.left + x2, self.top + y2


def patches_of(masks: CompressedMasks | Tensor) -> list[Patch]:
    """The patches of n masks, compressed or bitmaps (n, h, w)."""
    if isinstance(masks, CompressedMasks):
        return _patches_of_codes(masks) if len(masks) else []
    bitmaps = (masks != 0).numpy()
    boxes = mask_boxes(masks).int().tolist()
    return [Patch(y1, x1, bitmap[y1:y2, x1:x2]) for bitmap, (x1, y1, x2, y2) in zip(bitmaps, boxes, strict=True)]


def _patches_of_codes(masks: CompressedMasks) -> list[Patch]:
    text, bounds = masks.codes.cpu().numpy().tobytes(), itertools.pairwise(masks.offsets.tolist())
    codes: list[dict[str, Any]] = [
        {"size": list(masks.stored_size), "counts": text[start:end]} for start, end in bounds
    ]
    stored, boxes = coco_mask.decode(codes), coco_mask.toBbox(codes).astype(np.int64).tolist()  # (H, W, n), (n, 4)
    rows, columns = masks.rows.cpu().numpy(), masks.columns.cpu().numpy()
    patches = []
    for number, (x, y, width, height) in enumerate(boxes):
        top, shown_rows = _shown(rows, y, y + height)
        left, shown_columns = _shown(columns, x, x + width)
        bits = stored[:, :, number][np.ix_(shown_rows, shown_columns)] != 0
        patches.append(Patch(top, left, bits))
    return patches


def _shown(indices: NDArray[np.int64], start: int, end: int) -> tuple[int, NDArray[np.int64]]:
    """Where an image begins to show the stored rows (or columns) start..end - 1, and which it shows from there on.

    indices: the stored row that each row of the image shows.
    """
    at = np.flatnonzero((indices >= start) & (indices < end))
    first, last = (int(at[0]), int(at[-1]) + 1) if len(at) else (0, 0)
    return first, indices[first:last]


def masks_of(patches: Sequence[Patch], size: tuple[int, int]) -> CompressedMasks:
    """Compressed masks of an image of (h, w) from their patches."""
    height, width = size
    counts = [{"size": [height, width], "counts": _runs(patch, height, width)} for patch in patches]
    codes = coco_mask.frPyObjects(counts, height, width) if counts else []
    return CompressedMasks.of_codes([code["counts"] for code in codes], size)


def _runs(patch: Patch, height: int, width: int) -> list[int]:
    """The run lengths of a mask, column by column, background first."""
    lines = np.pad(patch.bits.T, ((0, 0), (1, 1))).astype(np.int8)  # (d, b + 2), a column in a line
    changes = np.diff(lines, axis=1)
    columns, rows = np.nonzero(changes)
    places = (patch.left + columns) * height + patch.top + rows
    again = np.flatnonzero(places[:-1] == places[1:])  # an end at the bottom, and a start at the top that follows
    places = np.delete(places, np.concatenate([again, again + 1]))
    if len(places) == 0 or places[-1] < height * width:
        places = np.append(places, height * width)
    runs: list[int] = np.diff(places, prepend=0).tolist()
    return runs


def bitmaps_of_patches(patches: Sequence[Patch], size: tuple[int, int]) -> Tensor:
    """(n, h, w) uint8 of 0 and 1."""
    bitmaps = np.zeros((len(patches), *size), np.uint8)
    for bitmap, patch in zip(bitmaps, patches, strict=True):
        bitmap[patch.window] = patch.bits
    return torch.from_numpy(bitmaps)


def union(patches: Sequence[Patch], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(h, w) bool, where any of the masks has pixels."""
    covered = np.zeros(size, np.bool_)
    for patch in patches:
        covered[patch.window] |= patch.bits
    return covered
