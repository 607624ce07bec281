"""Windows of Swin Transformer: equal to timm's on whole windows; elsewhere to attention computed cell by cell."""

from __future__ import annotations

import copy
import itertools

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from det_plugin_timm.config import TimmConfig
from det_plugin_timm.networks import create_network, take_maps
from det_plugin_timm.window_block import MASKED, WindowBlock, attention_mask, with_whole_windows

Places = tuple[tuple[int, int, bool], tuple[int, int, bool]]  # of a cell, by row and by column


def block_of(window: int, shift: int) -> SwinTransformerBlock:
    torch.manual_seed(0)
    made = SwinTransformerBlock(
        8, (16, 16), num_heads=2, window_size=window, shift_size=shift, always_partition=True, dynamic_mask=True
    )
    nn.init.normal_(made.attn.relative_position_bias_table)
    return made.eval()


@pytest.mark.parametrize("shift", [0, 2])
def test_on_whole_windows_it_is_timm_s_block(shift: int) -> None:
    theirs = block_of(4, shift)
    ours = WindowBlock(copy.deepcopy(theirs))
    x = torch.randn(2, 8, 12, 8)
    torch.testing.assert_close(ours(x), theirs(x))


def attended(block: WindowBlock, x: Tensor) -> Tensor:
    """Attention of (H, W, C), cell by cell: with the cells of its window that are its neighbours in the padded map."""
    window, shift = block.window[0], block.shift[0]
    height, width, channels = x.shape
    rows, columns = (-(-side // window) * window for side in (height, width))
    padded = torch.zeros(rows, columns, channels)
    padded[:height, :width] = x
    heads = block.attn.num_heads
    q, k, v = block.attn.qkv(padded).reshape(rows, columns, 3, heads, -1).unbind(2)
    table = block.attn.relative_position_bias_table.reshape(2 * window - 1, 2 * window - 1, heads)
    out = torch.zeros(rows, columns, channels)

    def place(cell: int, side: int) -> tuple[int, int, bool]:
        """Window, index in it, and whether the shift brought the cell there from the map's other end."""
        moved = (cell - shift) % side
        return moved // window, moved % window, cell < shift

    def neighbours(one: Places, two: Places) -> bool:
        return all((a[0], a[2]) == (b[0], b[2]) for a, b in zip(one, two, strict=True))

    cells = list(itertools.product(range(rows), range(columns)))
    places = {cell: (place(cell[0], rows), place(cell[1], columns)) for cell in cells}
    for cell in cells:
        (row, i, _), (column, j, _) = places[cell]
        same = [
            other
            for other in cells
            if all(
                (mine[0], mine[2]) == (its[0], its[2]) for mine, its in zip(places[cell], places[other], strict=True)
            )
        ]
        assert (row, column) == (places[same[0]][0][0], places[same[0]][1][0])
        logits = torch.stack(
            [
                (q[cell] * k[other]).sum(-1) * block.attn.scale
                + table[i - places[other][0][1] + window - 1, j - places[other][1][1] + window - 1]
                for other in same
            ]
        )
        values = torch.stack([v[other] for other in same])
        out[cell] = (logits.softmax(0)[..., None] * values).sum(0).flatten()
    return block.attn.proj(out)[:height, :width]


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("size", [(6, 9), (3, 5), (8, 4)])
def test_on_other_sizes_it_is_attention_between_neighbours(size: tuple[int, int], shift: int) -> None:
    block = WindowBlock(block_of(4, shift))
    x = torch.randn(*size, 8)
    torch.testing.assert_close(block._attend(x[None])[0], attended(block, x))


def test_the_mask_of_a_row_of_cells() -> None:
    """A map of 1 x 6 cells in windows of 1 x 3, shifted by 1: cell 0 comes to the end, and is masked from 4 and 5."""
    mask = attention_mask((1, 6), (1, 3), (0, 1))
    m = MASKED
    assert mask.tolist() == [[[0, 0, 0]] * 3, [[0, 0, m], [0, 0, m], [m, m, 0]]]


def test_all_blocks_of_a_swin_transformer_are_replaced_and_keep_their_names() -> None:
    theirs = timm.create_model("swin_tiny_patch4_window7_224")
    network = create_network("swin_tiny_patch4_window7_224")
    with_whole_windows(network)
    kinds = [type(module) for module in network.modules()]
    assert kinds.count(WindowBlock) == 12
    assert SwinTransformerBlock not in kinds
    assert list(dict(network.named_parameters())) == list(dict(theirs.named_parameters()))
    torch.manual_seed(0)
    network.load_state_dict(theirs.state_dict(), strict=False)
    x = torch.randn(1, 3, 224, 224)  # whole windows at all strides
    with torch.no_grad():
        ours = take_maps(network.eval(), x, [0, 1, 2])
        wanted = theirs.eval().forward_intermediates(x, indices=[0, 1, 2], intermediates_only=True)
    for one, two in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_other_networks_are_left_alone() -> None:
    backbone = TimmConfig(name="swinv2_tiny_window8_256").build()
    assert not any(isinstance(module, WindowBlock) for module in backbone.modules())
