"""Encoding of boxes as regression targets, and decoding.

Letters: n boxes. Boxes are xyxy in pixels; deltas are (dx, dy, dw, dh).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from det_core.boxes.box_config import DeltaCoderConfig
from det_core.contracts import BoxCoder


class DeltaCoder(BoxCoder):
    """dx = (gx - px) / pw, dw = log(gw / pw), normalised (Girshick et al., R-CNN, 2014, appendix C)."""

    def __init__(self, config: DeltaCoderConfig) -> None:
        self.means, self.stds = config.means, config.stds
        self.limit = abs(math.log(config.max_ratio))
        self.least = -self.limit if config.clip_shrinking else None

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        anchors = anchors.to(boxes.dtype)
        px, py, pw, ph = _centre_form(anchors)
        gx, gy, gw, gh = _centre_form(boxes)
        deltas = torch.stack([(gx - px) / pw, (gy - py) / ph, torch.log(gw / pw), torch.log(gh / ph)], -1)
        return (deltas - deltas.new_tensor(self.means)) / deltas.new_tensor(self.stds)

    def decode(self, anchors: Tensor, deltas: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        if deltas.dtype in (torch.float16, torch.bfloat16):
            deltas = deltas.float()  # half precision would be off by whole pixels
        deltas = deltas * deltas.new_tensor(self.stds) + deltas.new_tensor(self.means)
        while anchors.dim() < deltas.dim():
            anchors = anchors.unsqueeze(-2)
        px, py, pw, ph = _centre_form(anchors)
        dx, dy, dw, dh = deltas.unbind(-1)
        x, y = px + pw * dx, py + ph * dy
        w = pw * dw.clamp(self.least, self.limit).exp()
        h = ph * dh.clamp(self.least, self.limit).exp()
        boxes = torch.stack([x - w * 0.5, y - h * 0.5, x + w * 0.5, y + h * 0.5], -1)
        return boxes if size is None else clip(boxes, size)


def _centre_form(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x1 + x2) * 0.5, (y1 + y2) * 0.5, x2 - x1, y2 - y1


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip boxes (..., 4) to x in [0, w], y in [0, h] of an image of `size` (h, w)."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], -1)
