"""Blocks of Swin Transformer (Liu et al., 2021, section 3.2) on maps of any size, in timm's modules.

Letters: N images, H W size of a map, H' W' size padded to whole windows, C channels, w window side, h heads.
"""

from __future__ import annotations

import torch
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional as F

MASKED = -100.0  # added to the attention between parts of a window that are not neighbours in the image


class WindowBlock(nn.Module):
    """A block made of the parts of timm's, which pads a map to whole windows before it is shifted, not after.

    timm pads after the shift, so that on maps of other sizes than its windows fill, rows from both ends of the map
    attend to each other. Swin's own detectors, and mmdet's, pad before. On whole windows both are equal.
    """

    def __init__(self, block: SwinTransformerBlock) -> None:
        super().__init__()
        self.norm1, self.attn, self.drop_path1 = block.norm1, block.attn, block.drop_path1
        self.norm2, self.mlp, self.drop_path2 = block.norm2, block.mlp, block.drop_path2
        self.window, self.shift = block.window_size, block.shift_size
        # Checkpoints of mmdet contain it, and no part of them may be left over.
        index = self.attn.relative_position_index
        assert isinstance(index, Tensor)
        self.attn.register_buffer("relative_position_index", index, persistent=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) to the same."""
        x = x + self.drop_path1(self._attend(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        """Attention in the windows of the padded and shifted map: (N, H, W, C) to the same."""
        height, width = x.shape[1:3]
        rows, columns = self.window
        x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        padded = (x.shape[1], x.shape[2])
        down, right = self.shift
        shifted = any(self.shift)
        mask = attention_mask(padded, self.window, self.shift).to(x) if shifted else None
        if shifted:
            x = torch.roll(x, (-down, -right), dims=(1, 2))
        windows = self.attn(window_partition(x, self.window).flatten(1, 2), mask=mask)
        x = window_reverse(windows.unflatten(1, self.window), self.window, *padded)
        if shifted:
            x = torch.roll(x, self.shift, dims=(1, 2))
        return x[:, :height, :width]


def attention_mask(size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """Values that are added to the attention in shifted windows (section 3.2, figure 4).

    size: (H', W'), in whole windows. Returns (windows, w * w, w * w): 0, or `MASKED` between cells of a window that
    the shift brought there from opposite ends of the map.
    """
    ends = []
    for side, length, by in zip(size, window, shift, strict=True):
        region = torch.zeros(side)
        region[-length:] = 1
        if by:
            region[-by:] = 2
        ends.append(region)
    regions = ends[0][:, None] * 3 + ends[1]
    cells = window_partition(regions[None, :, :, None], window).flatten(1)
    return (cells[:, None] != cells[:, :, None]).float() * MASKED


def with_whole_windows(network: nn.Module) -> None:
    """Replace the blocks of a Swin Transformer of timm, in place; their parameters keep their names."""
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            for number, block in enumerate(module):
                if isinstance(block, SwinTransformerBlock):
                    module[number] = WindowBlock(block)
