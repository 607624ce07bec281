"""Changes of colours of 8-bit images, in plain PyTorch: the definition of `det_ops.adjust_colors`.

The arithmetic is that of torchvision's `transforms.v2.functional`, operation by operation: float32, and each step
truncates its result to 8 bits. Letters: H W image size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
# Value, and the three of `_from_hsv`, that red, green and blue are in each sixth of the colour circle.
SECTORS = ((0, 2, 1, 1, 3, 0), (3, 0, 0, 2, 1, 1), (1, 1, 3, 0, 0, 2))


def adjust_colors(image: Tensor, steps: Sequence[int], factors: Sequence[float], channels: Sequence[int]) -> Tensor:
    """image (H, W, 3) uint8, changed by each step with its factor; channel c of the result is `channels[c]`."""
    planes = image.permute(2, 0, 1)
    for step, factor in zip(steps, factors, strict=True):
        if step == BRIGHTNESS:
            planes = planes.mul(factor).clamp_(0, 255).to(torch.uint8)
        elif step == CONTRAST:
            planes = _blend(planes, _gray(planes).mean(dim=(-3, -2, -1), keepdim=True), factor)
        elif step == SATURATION:
            planes = _blend(planes, _gray(planes), factor)
        else:
            planes = _turn_hue(planes, factor)
    return planes[list(channels)].permute(1, 2, 0).clone(memory_format=torch.contiguous_format)


def _gray(planes: Tensor) -> Tensor:
    """(1, H, W) float32 whole numbers."""
    red, green, blue = planes.unbind(0)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()[None]


def _blend(planes: Tensor, other: Tensor, ratio: float) -> Tensor:
    return planes.mul(ratio).add_(other, alpha=1.0 - ratio).clamp_(0, 255).to(torch.uint8)


def _turn_hue(planes: Tensor, shift: float) -> Tensor:
    hue, saturation, value = _to_hsv(planes.to(torch.float32).mul_(1.0 / 255))
    return _from_hsv(hue.add_(shift).remainder_(1.0), saturation, value).mul(255 + 1.0 - 1e-3).to(torch.uint8)


def _to_hsv(planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value (H, W) in 0..1. Grey has no saturation, and hue 0."""
    red, green, _ = planes.unbind(0)
    least, most = torch.aminmax(planes, dim=0)
    grey, extent = most == least, most - least
    ones = torch.ones_like(most)
    saturation = extent / torch.where(grey, ones, most)
    r, g, b = ((most - planes) / torch.where(grey, ones, extent)).unbind(0)
    is_red = most == red
    is_green = (most == green) & ~is_red
    hue = torch.where(is_red, b - g, torch.where(is_green, r + 2.0 - b, g + 4.0 - r))
    return hue.mul(1.0 / 6.0).add_(1.0).fmod_(1.0), saturation, most


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """(3, H, W) in 0..1."""
    six = hue.mul(6)
    sector = six.floor()
    part, rest = saturation * (six - sector), 1.0 - saturation
    low = (rest * value).clamp_(0.0, 1.0)
    falling = ((1.0 - part) * value).clamp_(0.0, 1.0)
    rising = ((part + rest) * value).clamp_(0.0, 1.0)
    kinds = torch.tensor(SECTORS, device=hue.device)[:, sector.long().remainder_(6)]
    return torch.stack([value, low, falling, rising]).gather(0, kinds)
