"""Instance masks that are no bitmaps: those of objects from the file to the loss, those of detections until their use.

Letters: n masks, c bytes of code, H W size of the masks as they are stored, h w size of the image, S side of a mask
head's mask.
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

import det_ops

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


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

    def __getitem__(self, chosen: Tensor | slice) -> CompressedMasks:
        """The masks chosen by (n,) bool, by int64 indices or by a slice, in their order."""
        if isinstance(chosen, slice):
            chosen = torch.arange(len(self))[chosen]
        indices = chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen
        bounds = self.offsets.tolist()
        parts = [self.codes[bounds[i] : bounds[i + 1]] for i in indices.tolist()]
        lengths = torch.tensor([0, *(len(part) for part in parts)], device=self.offsets.device)
        return attrs.evolve(self, codes=torch.cat([self.codes[:0], *parts]), offsets=lengths.cumsum(0))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> CompressedMasks:
        """The masks on another device."""
        return self.mapped(lambda x: x.to(device, non_blocking=non_blocking))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> CompressedMasks:
        """With `change` of every tensor."""
        return attrs.evolve(
            self,
            codes=change(self.codes),
            offsets=change(self.offsets),
            rows=change(self.rows),
            columns=change(self.columns),
        )

    def resized(self, size: tuple[int, int]) -> CompressedMasks:
        """Resized to (height, width) by nearest pixel."""
        return attrs.evolve(self, rows=_nearest(self.rows, size[0]), columns=_nearest(self.columns, size[1]))

    def mirrored(self, flip_x: bool, flip_y: bool) -> CompressedMasks:
        """Mirrored left and right, top and bottom."""
        rows = self.rows.flip(0) if flip_y else self.rows
        return attrs.evolve(self, rows=rows, columns=self.columns.flip(0) if flip_x else self.columns)

    def cropped(self, crop: tuple[int, int, int, int]) -> CompressedMasks:
        """The part (x1, y1, x2, y2) of the masks, in pixels."""
        x1, y1, x2, y2 = crop
        return attrs.evolve(self, rows=self.rows[y1:y2], columns=self.columns[x1:x2])

    def padded(self, *, bottom: int, right: int) -> CompressedMasks:
        """With blank pixels added below and to the right. If there are any, the masks are coded again on the CPU."""
        if bottom == 0 and right == 0:
            return self
        height, width = self.stored_size
        if len(self) == 0:
            stored = CompressedMasks.of_codes([], (height + 1, width + 1)).to(self.device)
        else:  # one blank row and column more, which all added pixels show
            bitmaps = torch.from_numpy(self._stored()).permute(2, 0, 1)
            stored = CompressedMasks.of_bitmaps(F.pad(bitmaps, (0, 1, 0, 1))).to(self.device)
        rows = torch.cat([self.rows, self.rows.new_full((bottom,), height)])
        return attrs.evolve(
            stored, rows=rows, columns=torch.cat([self.columns, self.columns.new_full((right,), width)])
        )

    def bitmaps(self) -> Tensor:
        """(n, h, w) uint8 of 0 and 1, on the device of the codes."""
        if len(self) == 0:
            return torch.zeros(self.shape, dtype=torch.uint8, device=self.device)
        stored = self._stored().transpose(2, 0, 1)
        shown = stored[:, self.rows.cpu().numpy()][:, :, self.columns.cpu().numpy()]
        return torch.from_numpy(np.ascontiguousarray(shown)).to(self.device)

    def _stored(self) -> NDArray[np.uint8]:
        """(H, W, n) the masks as they are stored; n is at least 1."""
        codes: list[dict[str, Any]] = [
            {"size": list(self.stored_size), "counts": text} for text in _texts(self.codes, self.offsets)
        ]
        stored: NDArray[np.uint8] = coco_mask.decode(codes)
        return stored

    def run_lengths(self) -> list[bytes]:
        """COCO's compressed run-length code of each mask, of the image's (h, w)."""
        height, width = self.stored_size
        if torch.equal(self.rows.cpu(), torch.arange(height)) and torch.equal(self.columns.cpu(), torch.arange(width)):
            return _texts(self.codes, self.offsets)
        return CompressedMasks.of_bitmaps(self.bitmaps()).run_lengths()


@frozen(eq=False, kw_only=True)
class RegionMasks:
    """n masks (h, w) as a mask head predicts them, each for its region: pasted into the image only where that is asked.

    probabilities: (n, S, S). boxes: (n, 4) xyxy in pixels of the image. size: (h, w). rule and threshold: as in
    `det_ops.paste_masks`. flipped: (n,) bool, probabilities and boxes that are of the mirrored image, or None.
    """

    probabilities: Tensor
    boxes: Tensor
    size: tuple[int, int]
    rule: det_ops.PasteRule = "sampled"
    threshold: float = 0.5
    flipped: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[RegionMasks]) -> RegionMasks:
        """All masks of at least one part; the parts are of one image and have the same rule and threshold."""
        first = parts[0]
        alike = {(part.size, part.rule, part.threshold) for part in parts}
        assert len(alike) == 1, f"masks of different images or rules: {alike}"
        flipped = None
        if any(part.flipped is not None for part in parts):
            flipped = torch.cat([part.flags() for part in parts])
        probabilities = torch.cat([part.probabilities for part in parts])
        return attrs.evolve(
            first, probabilities=probabilities, boxes=torch.cat([part.boxes for part in parts]), flipped=flipped
        )

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, chosen: Tensor | slice) -> RegionMasks:
        """The masks chosen by (n,) bool, int64 indices or a slice, in their order."""
        flipped = None if self.flipped is None else self.flipped[chosen]
        return attrs.evolve(self, probabilities=self.probabilities[chosen], boxes=self.boxes[chosen], flipped=flipped)

    def to(self, device: torch.device | str) -> RegionMasks:
        """The masks on another device."""
        return self.mapped(lambda x: x.to(device))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> RegionMasks:
        """With `change` of every tensor."""
        flipped = None if self.flipped is None else change(self.flipped)
        return attrs.evolve(self, probabilities=change(self.probabilities), boxes=change(self.boxes), flipped=flipped)

    def mirrored(self) -> RegionMasks:
        """Mirrored left and right."""
        return attrs.evolve(self, flipped=~self.flags())

    def placed(self, x: int, y: int, size: tuple[int, int]) -> RegionMasks:
        """The masks in a larger image of (height, width) that has this one's top-left pixel at (x, y)."""
        boxes = self.boxes + self.boxes.new_tensor([x, y, x, y])
        if self.flipped is not None:  # boxes of the mirrored image are counted from the right
            right = size[1] - self.size[1] - x
            boxes = torch.where(self.flipped[:, None], self.boxes + self.boxes.new_tensor([right, y, right, y]), boxes)
        return attrs.evolve(self, boxes=boxes, size=size)

    def bitmaps(self) -> Tensor:
        """(n, h, w) bool, pasted."""
        return det_ops.paste_masks(*self.arguments(), mirrored=self.flipped)

    def codes(self) -> list[bytes]:
        """COCO's compressed run-length codes of the bitmaps, which are not made for it."""
        here = self.to("cpu")
        return _texts(*det_ops.paste_mask_codes(*here.arguments(), mirrored=here.flipped))

    def arguments(self) -> tuple[Tensor, Tensor, tuple[int, int], float, det_ops.PasteRule]:
        """(n, S, S) probabilities, (n, 4) boxes, and the other arguments of `det_ops.paste_masks`."""
        return self.probabilities, self.boxes, self.size, self.threshold, self.rule

    def flags(self) -> Tensor:
        """(n,) bool: `flipped`, if it is not None."""
        return torch.zeros_like(self.boxes[:, 0], dtype=torch.bool) if self.flipped is None else self.flipped


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """(n, H, W) masks, nonzero inside, as compressed run-length codes: {"size": [H, W], "counts": text}."""
    array = (masks.detach() != 0).to("cpu", torch.uint8).numpy()
    codes = []
    for mask in array:
        code = coco_mask.encode(np.asfortranarray(mask))
        codes.append({"size": [int(s) for s in code["size"]], "counts": code["counts"].decode("ascii")})
    return codes


def mask_codes(masks: Tensor | RegionMasks | CompressedMasks) -> list[dict[str, Any]]:
    """Masks of a detector, bitmaps (n, H, W) or not, as `encode_masks` returns them; only bitmaps are looked at."""
    if isinstance(masks, torch.Tensor):
        return encode_masks(masks)
    size = masks.size if isinstance(masks, RegionMasks) else (len(masks.rows), len(masks.columns))
    codes = masks.codes() if isinstance(masks, RegionMasks) else masks.run_lengths()
    return [{"size": list(size), "counts": code.decode("ascii")} for code in codes]


def decode_masks(codes: Sequence[dict[str, Any]]) -> CompressedMasks:
    """At least one compressed run-length code, as `encode_masks` returns them, as masks (n, H, W).

    Raises:
        ValueError: if a code has no text, or another size than the first.
    """
    sizes = {tuple(code.get("size", ())) if isinstance(code, dict) else () for code in codes}
    if len(sizes) != 1 or len(size := sizes.pop()) != 2:
        raise ValueError("expected run-length codes {size: [height, width], counts: text} of one size")
    if not all(isinstance(code.get("counts"), str) for code in codes):
        raise ValueError("expected run-length codes whose `counts` is text")
    return CompressedMasks.of_codes([code["counts"].encode("ascii") for code in codes], (size[0], size[1]))


def placed_bitmaps(bitmaps: Tensor, x: int, y: int, size: tuple[int, int]) -> CompressedMasks:
    """Bitmaps (n, h, w) in a larger image of (height, width) with their top-left pixel at (x, y), one by one."""
    codes = []
    for bitmap in bitmaps.cpu():
        whole = torch.zeros(1, *size, dtype=torch.uint8)
        whole[0, y : y + bitmap.shape[0], x : x + bitmap.shape[1]] = bitmap
        codes += CompressedMasks.of_bitmaps(whole).run_lengths()
    return CompressedMasks.of_codes(codes, size)


def united(masks: CompressedMasks, groups: Sequence[Sequence[int]]) -> CompressedMasks:
    """For each group of the masks (n, h, w) their union: a mask for each group."""
    size = (len(masks.rows), len(masks.columns))
    codes = [{"size": list(size), "counts": text} for text in masks.run_lengths()]
    return CompressedMasks.of_codes([coco_mask.merge([codes[i] for i in group])["counts"] for group in groups], size)


def _texts(codes: Tensor, offsets: Tensor) -> list[bytes]:
    """The codes (c,) of masks one by one, of which mask i is codes[offsets[i]:offsets[i + 1]]."""
    text = codes.cpu().numpy().tobytes()
    return [text[start:end] for start, end in itertools.pairwise(offsets.tolist())]


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


def mask_boxes(masks: Tensor | CompressedMasks) -> Tensor:
    """The boxes of the pixels of masks: (n, 4) float32 xyxy, all 0 for a mask without pixels.

    masks: compressed, or bitmaps (n, h, w), nonzero inside. The last pixel of a mask is inside its box.
    """
    bitmaps = bitmaps_of(masks) != 0
    sides = []
    for inside in (bitmaps.any(dim=1), bitmaps.any(dim=2)):  # (n, w), (n, h)
        at = torch.arange(inside.shape[1], device=inside.device)
        first = torch.where(inside, at, inside.shape[1]).amin(dim=1)
        sides.append((first, torch.where(inside, at + 1, 0).amax(dim=1)))
    (x1, x2), (y1, y2) = sides
    boxes = torch.stack([x1, y1, x2, y2], dim=1)
    return torch.where((x2 > 0)[:, None], boxes, 0).float()
