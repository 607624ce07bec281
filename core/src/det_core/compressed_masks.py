"""Instance masks that stay compressed from the file to the loss.

Letters: n masks, c bytes of code, H W size of the masks as they are stored, h w size of the image.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, overload

import attrs
import numpy as np
import torch
from attrs import frozen
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence


@frozen(eq=False, kw_only=True)
class CompressedMasks:
    """n masks (h, w) as COCO's compressed run-length codes, kilobytes instead of bitmaps.

    codes: (c,) uint8, the codes of all masks, each of stored_size (H, W). offsets: (n + 1,) int64, mask i is
    codes[offsets[i]:offsets[i + 1]]. rows: (h,) int64 and columns: (w,) int64, the stored row and column that each row
    and column of the image shows: resizing by nearest pixel, mirroring and cropping change only these.
    """

    codes: Tensor
    offsets: Tensor
    stored_size: tuple[int, int]
    rows: Tensor
    columns: Tensor

    @classmethod
    def of_codes(cls, codes: Sequence[bytes], size: tuple[int, int]) -> CompressedMasks:
        """Masks of (height, width) from their codes."""
        text = bytearray(b"".join(codes))
        lengths = np.fromiter((len(code) for code in codes), np.int64, len(codes))
        return cls(
            codes=torch.frombuffer(text, dtype=torch.uint8) if text else torch.zeros(0, dtype=torch.uint8),
            offsets=torch.from_numpy(np.concatenate([np.zeros(1, np.int64), lengths.cumsum()])),
            stored_size=size,
            rows=torch.arange(size[0]),
            columns=torch.arange(size[1]),
        )

    @classmethod
    def of_bitmaps(cls, bitmaps: Tensor) -> CompressedMasks:
        """Masks from bitmaps (n, h, w), nonzero inside."""
        array = (bitmaps.detach() != 0).to("cpu", torch.uint8).numpy()
        codes = coco_mask.encode(np.asfortranarray(array.transpose(1, 2, 0))) if len(array) else []
        return cls.of_codes([code["counts"] for code in codes], (int(bitmaps.shape[1]), int(bitmaps.shape[2])))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, h, w), as of bitmaps."""
        return len(self), len(self.rows), len(self.columns)

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def __getitem__(self, chosen: Tensor) -> CompressedMasks:
        """The masks chosen by (n,) bool or by int64 indices, in their order."""
        indices = chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen
        bounds = self.offsets.tolist()
        parts = [self.codes[bounds[i] : bounds[i + 1]] for i in indices.tolist()]
        lengths = torch.tensor([0, *(len(part) for part in parts)], device=self.offsets.device)
        return attrs.evolve(self, codes=torch.cat([self.codes[:0], *parts]), offsets=lengths.cumsum(0))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> CompressedMasks:
        """The masks on another device."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=non_blocking)
            for name in ("codes", "offsets", "rows", "columns")
        }
        return attrs.evolve(self, **moved)

    def resized(self, size: tuple[int, int]) -> CompressedMasks:
        """Resized to (height, width) by nearest pixel."""
        return attrs.evolve(self, rows=_nearest(self.rows, size[0]), columns=_nearest(self.columns, size[1]))

    def mirrored(self, flip_x: bool, flip_y: bool) -> CompressedMasks:
        """Mirrored left and right, top and bottom."""
        rows = self.rows.flip(0) if flip_y else self.rows
        return attrs.evolve(self, rows=rows, columns=self.columns.flip(0) if flip_x else self.columns)

    def bitmaps(self) -> Tensor:
        """(n, h, w) uint8 of 0 and 1, on the device of the codes."""
        if len(self) == 0:
            return torch.zeros(self.shape, dtype=torch.uint8, device=self.device)
        text, bounds = self.codes.cpu().numpy().tobytes(), self.offsets.tolist()
        codes: list[dict[str, Any]] = [
            {"size": list(self.stored_size), "counts": text[start:end]} for start, end in itertools.pairwise(bounds)
        ]
        stored = coco_mask.decode(codes).transpose(2, 0, 1)
        shown = stored[:, self.rows.cpu().numpy()][:, :, self.columns.cpu().numpy()]
        return torch.from_numpy(np.ascontiguousarray(shown)).to(self.device)


def _nearest(indices: Tensor, count: int) -> Tensor:
    """Indices (k,) resized to `count` by nearest pixel, in torch's arithmetic."""
    if len(indices) == count:
        return indices
    # Whole numbers below 2^24 are exact in float32.
    return F.interpolate(indices.float()[None, None], count, mode="nearest")[0, 0].long()


@overload
def bitmaps_of(masks: Tensor | CompressedMasks) -> Tensor: ...
@overload
def bitmaps_of(masks: None) -> None: ...
def bitmaps_of(masks: Tensor | CompressedMasks | None) -> Tensor | None:
    """Masks as bitmaps (n, h, w) uint8, whether compressed or not; None stays None."""
    return masks.bitmaps() if isinstance(masks, CompressedMasks) else masks
