"""Anchors on a grid.

Letters: L levels, A anchors per cell, h w feature size. Boxes are xyxy float32 in input pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from det_core.boxes.box_config import GridAnchorsConfig
from det_core.contracts import AnchorGenerator, LevelAnchors


class GridAnchors(AnchorGenerator):
    """Anchors centred on the cell's corner (x * stride, y * stride), as in Detectron and the modern reference.

    A base anchor of scale s and ratio r at stride b has width b*s/sqrt(r) and height b*s*sqrt(r); with `sides`, b*s is
    the side. The order in a cell is ratio-major. All arithmetic is float32 for every network precision, since
    assignments depend on it. torchvision's detectors use `whole_sides`, `rounded` and `spacing: image`, its small ones
    `sides`, mmdet 0.x and 1.x `rule: mmdet1`, Detectron and maskrcnn-benchmark `rule: detectron`.
    """

    def __init__(self, config: GridAnchorsConfig, strides: tuple[int, ...]) -> None:
        self.strides = strides
        self.spacing_from_image = config.spacing == "image"
        self.base = [self._base(config, stride) for stride in strides]
        self._kept = KeptAnchors()

    @staticmethod
    def _base(config: GridAnchorsConfig, stride: int) -> Tensor:
        unit, sizes = (stride, config.scales) if config.sides is None else (1, config.sides)
        ratios, scales = (torch.tensor(values, dtype=torch.float32) for values in (config.ratios, sizes))
        root = torch.sqrt(ratios)[:, None]
        if config.rule == "mmdet1":
            return pixel_anchors((unit * (1 / root) * scales).flatten(), (unit * root * scales).flatten(), stride)
        if config.rule == "detectron":
            return detectron_anchors(ratios, scales if config.sides is None else scales / stride, stride)
        if config.whole_sides:
            sides = torch.tensor([float(int(unit * size)) for size in sizes])
            width, height = ((1 / root) * sides).flatten(), (root * sides).flatten()
        else:
            width, height = (unit * (1 / root) * scales).flatten(), (unit * root * scales).flatten()
        base = torch.stack([-0.5 * width, -0.5 * height, 0.5 * width, 0.5 * height], 1)
        return base.round() if config.rounded else base

    def __call__(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> list[LevelAnchors]:
        return self._kept.get(sizes, device, self._make)

    def _make(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> list[LevelAnchors]:
        return [
            tile(base.to(device), spacing, size)
            for base, spacing, size in zip(self.base, self._spacing(sizes), sizes, strict=True)
        ]

    def _spacing(self, sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Pixels between rows and between columns of each level. The padded size is computed from the finest level."""
        if not self.spacing_from_image:
            return [(stride, stride) for stride in self.strides]
        height, width = (side * self.strides[0] for side in sizes[0])
        return [(height // rows, width // columns) for rows, columns in sizes]


def pixel_anchors(width: Tensor, height: Tensor, stride: float) -> Tensor:
    """Anchors (A, 4) of these sides (A,), as mmdet 0.x and 1.x place them in the first cell of a level.

    They hold whole pixels: the first and the last are the middle of the cell's pixels, (stride - 1) / 2, minus and plus
    half of (side - 1), rounded half to even. A box ends after its last pixel.
    """
    middle, x, y = (stride - 1) / 2, 0.5 * (width - 1), 0.5 * (height - 1)
    first = torch.stack([middle - x, middle - y], 1).round()
    last = torch.stack([middle + x, middle + y], 1).round()
    return torch.cat([first, last + 1], 1)


def detectron_anchors(ratios: Tensor, scales: Tensor, stride: float) -> Tensor:
    """Anchors (A, 4) as Detectron places them in the first cell of a level, by ratio, then by scale.

    The sides of the anchor of scale 1 are whole pixels, rounded half to even: the width, and then the height from it.
    """
    width = torch.sqrt(stride * stride / ratios.double()).round()
    height = (width * ratios).round()
    sides = (torch.stack([width, height], 1)[:, None] * scales.double()[:, None]).flatten(0, 1)
    middle, half = (stride - 1) / 2, 0.5 * (sides - 1)
    return torch.cat([middle - half, middle + half + 1], 1).float()


class KeptAnchors:
    """The anchors of the latest feature sizes, so that they are not made anew in every step; nobody writes to them."""

    LIMIT = 8  # sets of sizes; one is 6 MB at 800 x 1333 pixels with 9 anchors per cell

    def __init__(self) -> None:
        self._made: dict[object, list[LevelAnchors]] = {}

    def get(
        self,
        sizes: Sequence[tuple[int, int]],
        device: torch.device,
        make: Callable[[Sequence[tuple[int, int]], torch.device], list[LevelAnchors]],
    ) -> list[LevelAnchors]:
        """Those for feature sizes (h, w), one per level; `make` makes them if they are not among the latest."""
        if torch.compiler.is_compiling():  # sizes may be symbols, and nothing that is traced may be kept
            return make(sizes, device)
        key = tuple(sizes), device
        found = self._made.pop(key, None)  # several threads may do this at once
        if found is None:
            with torch.inference_mode(False):  # what is made in inference mode cannot be used in training
                found = make(sizes, device)
        self._made[key] = found  # the latest is the last
        for old in list(self._made)[: -self.LIMIT]:
            self._made.pop(old, None)
        return list(found)


def tile(base: Tensor, spacing: tuple[float, float], size: tuple[int, int], offset: float = 0.0) -> LevelAnchors:
    """Repeat base anchors (A, 4), centred on (0, 0), at every cell of a map of `size` (h, w).

    spacing: pixels between rows and between columns. offset: position of the anchors in a cell; 0: corner, 0.5: centre.
    """
    rows, columns = (torch.arange(n, device=base.device) for n in size)
    row, column = (g.flatten() for g in torch.meshgrid(rows, columns, indexing="ij"))
    x, y = (column.float() + offset) * spacing[1], (row.float() + offset) * spacing[0]
    boxes = torch.stack([x, y, x, y], 1)[:, None] + base  # (h*w, A, 4)
    cells = torch.stack([row, column], 1).repeat_interleave(len(base), 0)
    return LevelAnchors(boxes.reshape(-1, 4), cells)
