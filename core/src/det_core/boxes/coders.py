"""Encoding of boxes as regression targets, and decoding.

Letters: n boxes. Boxes are xyxy in pixels; deltas are (dx, dy, dw, dh).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from det_core.boxes.box_config import DeltaCoderConfig
from det_core.boxes.device_copies import send
from det_core.contracts import BoxCoder


class DeltaCoder(BoxCoder):
    """dx = (gx - px) / pw, dw = log(gw / pw), normalised (Girshick et al., R-CNN, 2014, appendix C)."""

    def __init__(self, config: DeltaCoderConfig) -> None:
        self.means, self.stds = config.means, config.stds
        self.normalises = (self.means, self.stds) != ((0.0,) * 4, (1.0,) * 4)
        self.limit = abs(math.log(config.max_ratio))
        self.least = -self.limit if config.clip_shrinking else None
        self.margin = 1 if config.border == "pixel" else 0
        self._constants: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        centre, side = _centre_form(anchors.to(boxes.dtype))
        box_centre, box_side = _centre_form(boxes)
        deltas = torch.cat([(box_centre - centre) / side, (box_side / side).log()], -1)
        if not self.normalises:
            return deltas
        means, stds = self._means_and_stds(deltas)
        return (deltas - means) / stds

    def decode(self, anchors: Tensor, deltas: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        if deltas.dtype in (torch.float16, torch.bfloat16):
            deltas = deltas.float()  # half precision would be off by whole pixels
        if self.normalises:
            means, stds = self._means_and_stds(deltas)
            deltas = deltas * stds + means
        while anchors.dim() < deltas.dim():
            anchors = anchors.unsqueeze(-2)
        centre, side = _centre_form(anchors)
        moved = centre + side * deltas[..., :2]
        half = side * deltas[..., 2:].clamp(self.least, self.limit).exp() * 0.5
        boxes = torch.cat([moved - half, moved + half], -1)
        return boxes if size is None else self.clip(boxes, size)

    def clip(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        return clip(boxes, size, self.margin)

    def clip_batch(self, boxes: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        margin = self.margin
        low = torch.tensor([0, 0, margin, margin], dtype=boxes.dtype).expand(len(sizes), 4)
        high = torch.tensor([[w - margin, h - margin, w, h] for h, w in sizes], dtype=boxes.dtype)
        bounds = send(torch.stack([low, high]), boxes.device).reshape(2, -1, *[1] * (boxes.dim() - 2), 4)
        return boxes.clamp(bounds[0], bounds[1])

    def clip_images(self, boxes: Tensor, sizes: Tensor) -> Tensor:
        return clip_images(boxes, sizes, self.margin)

    def _means_and_stds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """(4,) each, of the device and dtype of a tensor, and kept: a copy to a GPU waits for it."""
        if torch.compiler.is_compiling():  # nothing that is traced may be kept
            return like.new_tensor(self.means), like.new_tensor(self.stds)
        key = like.device, like.dtype
        if key not in self._constants:
            with torch.inference_mode(False):
                self._constants[key] = like.new_tensor(self.means), like.new_tensor(self.stds)
        return self._constants[key]


def _centre_form(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (..., 2) and sides (..., 2) of boxes (..., 4), x first."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) * 0.5, high - low


def clip(boxes: Tensor, size: tuple[int, int], margin: int = 0) -> Tensor:
    """Clip boxes (..., 4) to x in [0, w], y in [0, h] of an image of `size` (h, w).

    margin: pixels that remain of a box outside: low corners are clipped to at most w or h less this, high ones to at
    least this.
    """
    height, width = size
    if margin:
        x1, y1, x2, y2 = boxes.unbind(-1)
        sides = (
            x1.clamp(0, width - margin),
            y1.clamp(0, height - margin),
            x2.clamp(margin, width),
            y2.clamp(margin, height),
        )
        return torch.stack(sides, -1)
    return torch.stack([boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)], -1).flatten(-2)


def clip_images(boxes: Tensor, sizes: Tensor, margin: int = 0) -> Tensor:
    """`clip` of boxes (N, ..., 4) of N images, each to its size (h, w) in `sizes` (N, 2)."""
    sizes = sizes.to(boxes.dtype).reshape(-1, *[1] * (boxes.dim() - 2), 2)
    width, height = sizes[..., 1], sizes[..., 0]
    x1, y1, x2, y2 = boxes.unbind(-1)
    sides = (
        torch.minimum(x1.clamp(min=0), width - margin),
        torch.minimum(y1.clamp(min=0), height - margin),
        torch.minimum(x2.clamp(min=margin), width),
        torch.minimum(y2.clamp(min=margin), height),
    )
    return torch.stack(sides, -1)
