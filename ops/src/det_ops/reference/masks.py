"""Masks as COCO's compressed run-length codes, in plain PyTorch: decoding, and the targets of a mask head.

Letters: n objects, p regions, H W size of the masks as they are stored, h w size of the image, which reads row `rows`
(h,) and column `columns` (w,) of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from det_ops.reference import pooling
from det_ops.reference.precision import full

CHUNK = 1 << 25  # maximum mask pixels held as floats at once
MAX_SYMBOLS = 12  # of a run: 60 bits


def run_lengths(code: Tensor) -> Tensor:
    """The runs of a code (c,) uint8, background first: (r,) int64. RuntimeError if the code is damaged.

    A character has 5 bits, low ones first, a sign in the last; from the fourth run on, a code stores the difference to
    the run before the last.
    """
    symbols = code.long() - 48
    ends = (symbols & 32 == 0).nonzero().flatten()
    damaged = len(ends) == 0 or int(ends[-1]) != len(symbols) - 1
    starts = torch.cat([ends.new_zeros(1), ends[:-1] + 1])
    lengths = ends - starts + 1
    if damaged or int(lengths.max()) > MAX_SYMBOLS:
        raise RuntimeError("a mask has a damaged run-length code, or one of another size")
    run_of = torch.repeat_interleave(torch.arange(len(ends), device=code.device), lengths)
    parts = (symbols & 31) << (5 * (torch.arange(len(symbols), device=code.device) - starts[run_of]))
    runs = torch.zeros(len(ends), dtype=torch.int64, device=code.device).index_add_(0, run_of, parts)
    runs = runs - torch.where(symbols[ends] & 16 != 0, 1 << (5 * lengths), 0)
    runs[1::2] = runs[1::2].cumsum(0)
    runs[2::2] = runs[2::2].cumsum(0)
    return runs


def encode(bitmap: Tensor) -> Tensor:
    """The code (c,) uint8 of a bitmap (h, w) bool; the opposite of `run_lengths`."""
    pixels = F.pad(bitmap.T.flatten().to(torch.int8), (1, 0))  # background first, even where there is none
    changes = (pixels.diff() != 0).nonzero().flatten()
    ends = torch.cat([changes.new_zeros(1), changes, changes.new_tensor([pixels.numel() - 1])])
    runs = ends.diff()
    stored = runs.clone()
    stored[3:] -= runs[1:-2]
    # The characters that a run may need, low bits first; the last is the first after which only its sign is left.
    bits = 5 * torch.arange(MAX_SYMBOLS, device=bitmap.device)
    symbols, rest = (stored[:, None] >> bits) & 31, stored[:, None] >> (bits + 5)
    last = torch.where(symbols & 16 != 0, rest == -1, rest == 0)
    used = torch.arange(MAX_SYMBOLS, device=bitmap.device) <= last.int().argmax(1, keepdim=True)
    return (torch.where(last, symbols, symbols | 32) + 48)[used].to(torch.uint8)


def decode(codes: Tensor, offsets: Tensor, height: int, width: int, rows: Tensor, columns: Tensor) -> Tensor:
    """Bitmaps (n, h, w) uint8 of codes (c,) uint8, of which mask i is offsets[i]..offsets[i + 1]."""
    bounds = offsets.tolist()
    bitmaps = torch.zeros((len(bounds) - 1, len(rows), len(columns)), dtype=torch.uint8, device=codes.device)
    for bitmap, start, end in zip(bitmaps, bounds[:-1], bounds[1:], strict=True):
        runs = run_lengths(codes[start:end])
        if int(runs.min()) < 0 or int(runs.sum()) != height * width:
            raise RuntimeError("a mask has a damaged run-length code, or one of another size")
        inside = (torch.arange(len(runs), device=codes.device) & 1).to(torch.uint8)
        whole = torch.repeat_interleave(inside, runs).reshape(width, height).T  # codes run column by column
        bitmap.copy_(whole[rows[:, None], columns])
    return bitmaps


def mask_targets(
    codes: Tensor,
    offsets: Tensor,
    height: int,
    width: int,
    rows: Tensor,
    columns: Tensor,
    objects: Tensor,
    boxes: Tensor,
    size: Sequence[int],
) -> Tensor:
    """(p, *size) of the boxes' dtype, 0 or 1; see `det_ops.mask_targets`."""
    result = boxes.new_zeros((len(boxes), *size))
    used, position = torch.unique(objects, return_inverse=True)
    per_chunk = max(1, CHUNK // max(1, len(rows) * len(columns)))
    for start in range(0, len(used), per_chunk):
        chosen = used[start : start + per_chunk]
        at = ((position >= start) & (position < start + per_chunk)).nonzero().flatten()
        parts = [codes[int(offsets[i]) : int(offsets[i + 1])] for i in chosen.tolist()]
        lengths = torch.tensor([0, *map(len, parts)])
        bitmaps = decode(torch.cat(parts), lengths.cumsum(0), height, width, rows, columns)
        result[at] = bitmap_targets(bitmaps, position[at] - start, boxes[at], size)
    return result


def bitmap_targets(bitmaps: Tensor, objects: Tensor, boxes: Tensor, size: Sequence[int]) -> Tensor:
    """The same from bitmaps (n, h, w): RoIAlign of scale 1 with adaptive sampling, compared with >= 0.5."""
    rois = full(torch.cat([objects[:, None].to(boxes.dtype), boxes], 1))
    maps = bitmaps[:, None].to(rois.dtype)
    pooled = pooling.roi_align([maps], rois, torch.zeros_like(objects), size, [1.0], 0, "aligned", "avg")
    return (pooled[:, 0] >= 0.5).to(boxes.dtype)
