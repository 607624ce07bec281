"""Detection on tiles of a large image: where the tiles are, and how their detections are merged over the seams.

Letters: n detections, h w size of the image, t tiles. Boxes are xyxy in pixels of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from attrs import frozen
from torch import Tensor

import det_ops
from det_core.boxes.overlaps import box_area
from det_core.compressed_masks import CompressedMasks, RegionMasks, placed_bitmaps, united
from det_core.data.data_config import ResizeConfig
from det_core.errors import DetError
from det_core.settings import evolve, show
from det_core.slots import TransformConfig
from det_core.structures import Detections

Merge = Literal["nms", "union"]
Tile = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels of the image

SEAM = 4.0  # pixels: a box that ends this close to a seam may be part of an object that the seam cuts
COVERED = 0.6  # share of a cut box that another box of its class covers, above which it is part of the same object
JOINED = 0.5  # IoU of two cut boxes inside the area that both tiles show, above which they are parts of one object
ROWS = 256  # boxes that are compared with all others at once


@frozen(kw_only=True)
class Tiling:
    """Square tiles that overlap, and what is done about objects that their seams cut.

    size: side of a tile, in pixels of the image. overlap: share of a tile that the next one shows, too. merge: `nms`
    keeps the whole object of the tile that shows it whole; `union` also joins the parts of an object that no tile shows
    whole, into the box around them and the union of their masks.

    Raises:
        DetError: for a value that is not allowed.
    """

    size: int
    overlap: float = 0.2
    merge: Merge = "nms"

    def __attrs_post_init__(self) -> None:
        if type(self.size) is not int or self.size < 16:
            raise DetError(f"tile: found {show(self.size)}, expected a whole number of pixels of at least 16")
        if not isinstance(self.overlap, (int, float)) or not 0 <= self.overlap <= 0.9:
            raise DetError(f"overlap: found {show(self.overlap)}, expected a number from 0 to 0.9")
        if self.merge not in get_args(Merge):
            raise DetError(f"merge: found {show(self.merge)}, allowed: {', '.join(get_args(Merge))}")
        if self.merge == "union" and self.overlap * self.size < 2 * SEAM:
            raise DetError(
                f"merge: union compares parts of an object where two tiles overlap, but they overlap by "
                f"{self.overlap * self.size:g} pixels; set an overlap of at least {2 * SEAM:g} pixels"
            )

    def fits(self, size: tuple[int, int]) -> bool:
        """Whether an image of (height, width) fits in one tile; it is then detected as without tiles."""
        return max(size) <= self.size

    def tiles(self, size: tuple[int, int]) -> list[Tile]:
        """The tiles of an image of (height, width), row by row; the last ones end at its borders."""
        height, width = size
        return [(x1, y1, x2, y2) for y1, y2 in self._spans(height) for x1, x2 in self._spans(width)]

    def _spans(self, side: int) -> list[tuple[int, int]]:
        if side <= self.size:
            return [(0, side)]
        step = max(1, round(self.size * (1 - self.overlap)))
        return [(start, start + self.size) for start in (*range(0, side - self.size, step), side - self.size)]

    def transforms(self, given: Sequence[TransformConfig]) -> tuple[TransformConfig, ...]:
        """Test transforms that leave a tile at its full resolution; a resize to one fixed size stays."""
        scale = ((self.size, self.size),)
        return tuple(
            evolve(t, scales=scale, mode="choice") if isinstance(t, ResizeConfig) and t.keep_ratio else t for t in given
        )


def merge_tiles(
    found: Sequence[Detections], tiles: Sequence[Tile], size: tuple[int, int], tiling: Tiling, nms_threshold: float
) -> Detections:
    """The detections of an image from those of its t tiles, best first.

    Args:
        found: the detections of each tile, in pixels of the tile.
        tiles: where the tiles are in the image.
        size: (height, width) of the image.
        tiling: how the tiles were made.
        nms_threshold: IoU above which the worse of two detections of one class is suppressed.

    A box that a seam cuts is dropped if a box of its class that no seam cuts, or a larger cut box, covers most of it.
    """
    parts = _Parts.of(found, tiles, size)
    kept = parts[_suppressed(parts.found, ~parts.is_cut, nms_threshold)]
    kept = kept[~_covered(kept, by=~kept.is_cut, least=COVERED)]
    if tiling.merge == "union":
        kept = _joined(kept, tiles)
    kept = kept[~_covered(kept, by=kept.is_cut, least=1.0)]
    order = _suppressed(kept.found, torch.ones_like(kept.is_cut), nms_threshold)
    best = kept.found[order]
    return best[best.scores.argsort(descending=True, stable=True)]


@frozen(eq=False)
class _Parts:
    """The detections of all tiles in pixels of the image. tile: (n,) int64. cut: (n, 4) bool: which sides a seam cuts.

    Sides are left, top, right, bottom.
    """

    found: Detections
    tile: Tensor
    cut: Tensor

    @classmethod
    def of(cls, found: Sequence[Detections], tiles: Sequence[Tile], size: tuple[int, int]) -> _Parts:
        counts = torch.tensor([len(d) for d in found])
        tile = torch.repeat_interleave(torch.arange(len(tiles)), counts)
        corners = torch.tensor(tiles, dtype=torch.float32)[tile]
        boxes = torch.cat([d.boxes.float() for d in found]) + corners[:, [0, 1, 0, 1]]
        masks = _placed_masks(found, tiles, size)
        scores, labels = (torch.cat([getattr(d, name) for d in found]) for name in ("scores", "labels"))
        inner = corners != torch.tensor([0, 0, size[1], size[0]])
        cut = inner & ((boxes - corners).abs() <= SEAM)
        return cls(Detections(boxes=boxes, scores=scores, labels=labels, masks=masks), tile, cut)

    @property
    def is_cut(self) -> Tensor:
        """(n,) bool: whether a seam cuts a box."""
        return self.cut.any(1)

    def __getitem__(self, chosen: Tensor) -> _Parts:
        return _Parts(self.found[chosen], self.tile[chosen], self.cut[chosen])


def _placed_masks(
    found: Sequence[Detections], tiles: Sequence[Tile], size: tuple[int, int]
) -> RegionMasks | CompressedMasks | None:
    """The masks (n, h, w) of all tiles in the image; None if there are none."""
    pairs = list(zip(found, tiles, strict=True))
    pairs = [(d, t) for d, t in pairs if len(d)] or pairs[:1]
    regions = [(d.region_masks, t) for d, t in pairs]
    if all(r is not None for r, _ in regions):
        return RegionMasks.joined([r.placed(t[0], t[1], size) for r, t in regions if r is not None])
    bitmaps = [(d.masks, t) for d, t in pairs]
    if any(m is None for m, _ in bitmaps):
        return None
    parts = [placed_bitmaps(m, t[0], t[1], size) for m, t in bitmaps if m is not None]
    return CompressedMasks.of_codes([code for part in parts for code in part.run_lengths()], size)


def _suppressed(found: Detections, chosen: Tensor, threshold: float) -> Tensor:
    """(k,) int64: the detections that remain after NMS per class of those chosen (n,) bool, and all others."""
    index = chosen.nonzero().flatten()
    kept = det_ops.batched_nms(found.boxes[index], found.scores[index], found.labels[index], threshold)
    return torch.cat([index[kept], (~chosen).nonzero().flatten()])


def _covered(parts: _Parts, by: Tensor, least: float) -> Tensor:
    """(n,) bool: cut boxes of which another box of their class covers most.

    by: (n,) bool, which boxes count. least: their least area, as a factor on that of the box; of two cut boxes of one
    area the first counts.
    """
    boxes, labels, areas = parts.found.boxes, parts.found.labels, box_area(parts.found.boxes)
    others, found = by.nonzero().flatten(), torch.zeros(len(boxes), dtype=torch.bool)
    for rows in parts.is_cut.nonzero().flatten().split(ROWS):
        covers = det_ops.box_overlaps(boxes[rows], boxes[others], "iof") > COVERED
        covers &= labels[rows, None] == labels[others]
        limit = least * areas[rows, None]
        covers &= (areas[others] > limit) | ((areas[others] == limit) & (others < rows[:, None]))
        found[rows] = covers.any(1)
    return found


def _joined(parts: _Parts, tiles: Sequence[Tile]) -> _Parts:
    """The detections with the parts of one object, in neighbouring tiles, made one detection, which counts as whole."""
    groups = _groups(parts, tiles)
    if all(len(group) == 1 for group in groups):
        return parts
    found = parts.found
    first = torch.tensor([max(group, key=lambda i: float(found.scores[i])) for group in groups])
    boxes = torch.stack([torch.cat([found.boxes[g, :2].amin(0), found.boxes[g, 2:].amax(0)]) for g in groups])
    masks = None if not found.has_masks else united(_compressed(found), groups)
    alone = torch.tensor([len(group) == 1 for group in groups])
    cut = parts.cut[first] & alone[:, None]
    joined = Detections(boxes=boxes, scores=found.scores[first], labels=found.labels[first], masks=masks)
    return _Parts(joined, parts.tile[first], cut)


def _compressed(found: Detections) -> CompressedMasks:
    """The masks of detections that have some."""
    codes = found.mask_codes() or []
    size = codes[0]["size"]
    return CompressedMasks.of_codes([code["counts"].encode("ascii") for code in codes], (size[0], size[1]))


def _groups(parts: _Parts, tiles: Sequence[Tile]) -> list[list[int]]:
    """The indices of the detections, those of one object together, in the order of their first."""
    root = list(range(len(parts.found)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    members = [((parts.tile == t) & parts.is_cut).nonzero().flatten() for t in range(len(tiles))]
    for a, b in _neighbours(tiles):
        for i, j in _pairs(parts, members[a], members[b], tiles[a], tiles[b]):
            one, other = sorted((find(i), find(j)))
            root[other] = one
    groups: dict[int, list[int]] = {}
    for i in range(len(root)):
        groups.setdefault(find(i), []).append(i)
    return list(groups.values())


def _neighbours(tiles: Sequence[Tile]) -> list[tuple[int, int]]:
    """Pairs of tiles that overlap."""
    corners = torch.tensor(tiles)
    low = torch.maximum(corners[:, None, :2], corners[None, :, :2])
    high = torch.minimum(corners[:, None, 2:], corners[None, :, 2:])
    return [(a, b) for a, b in (high > low).all(-1).triu(1).nonzero().tolist()]


def _pairs(parts: _Parts, ones: Tensor, others: Tensor, a: Tile, b: Tile) -> list[tuple[int, int]]:
    """Indices of cut detections of two tiles that show one object: of one class, and alike where both tiles show it."""
    area = torch.tensor([*map(max, a[:2], b[:2]), *map(min, a[2:], b[2:])], dtype=torch.float32)
    low, high = area[[0, 1, 0, 1]], area[[2, 3, 2, 3]]
    shown = [torch.minimum(torch.maximum(parts.found.boxes[i], low), high) for i in (ones, others)]
    alike = det_ops.box_overlaps(shown[0], shown[1]) > JOINED
    alike &= parts.found.labels[ones, None] == parts.found.labels[others]
    ends = [_ends_inside(parts, i, own, other) for i, own, other in ((ones, a, b), (others, b, a))]
    alike &= ends[0][:, None] & ends[1]
    return [(int(ones[i]), int(others[j])) for i, j in alike.nonzero().tolist()]


def _ends_inside(parts: _Parts, index: Tensor, own: Tile, other: Tile) -> Tensor:
    """(k,) bool: which of the detections of a tile are cut by a seam that the other tile shows."""
    shown = [
        other[0] < own[0] < other[2],
        other[1] < own[1] < other[3],
        other[0] < own[2] < other[2],
        other[1] < own[3] < other[3],
    ]
    return (parts.cut[index] & torch.tensor(shown)).any(1)
