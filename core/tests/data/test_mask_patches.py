"""Masks as patches: equal to bitmaps, and back to COCO's codes without drawing any."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings, strategies as st

from det_core.compressed_masks import CompressedMasks, mask_boxes
from det_core.data.mask_patches import Patch, bitmaps_of_patches, masks_of, patches_of, union

side = st.integers(1, 12)


@given(
    n=st.integers(0, 4),
    height=side,
    width=side,
    h=side,
    w=side,
    flip_x=st.booleans(),
    flip_y=st.booleans(),
    more=st.integers(0, 3),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_patches_are_those_of_bitmaps(
    n: int,
    height: int,
    width: int,
    h: int,
    w: int,
    flip_x: bool,
    flip_y: bool,
    more: int,
    share: float,
    seed: int,
) -> None:
    bitmaps = (torch.rand(n, height, width, generator=torch.Generator().manual_seed(seed)) < share).to(torch.uint8)
    masks = CompressedMasks.of_bitmaps(bitmaps).resized((h, w)).padded(bottom=more, right=more)
    masks = masks.mirrored(flip_x, flip_y)
    expected, size = masks.bitmaps(), (h + more, w + more)
    for patches in (patches_of(masks), patches_of(expected)):
        assert torch.equal(bitmaps_of_patches(patches, size), expected)
        boxes = torch.tensor([patch.box() for patch in patches]).reshape(-1, 4)
        assert torch.equal(boxes.float(), mask_boxes(expected))
        assert [patch.area() for patch in patches] == expected.sum((1, 2)).tolist()
        again = masks_of(patches, size)
        assert again.stored_size == size
        assert torch.equal(again.codes, CompressedMasks.of_bitmaps(expected).codes)  # the same code, bit by bit
        assert np.array_equal(union(patches, size), expected.bool().any(0).numpy() if n else np.zeros(size, bool))


def test_pixels_are_taken_away() -> None:
    patch = Patch(2, 1, np.ones((2, 3), bool))
    covering = np.zeros((6, 5), bool)
    covering[2, 1:3] = True
    covering[5] = True
    left = patch.without(covering)
    assert left.bits.tolist() == [[False, False, True], [True, True, True]]
    assert left.box() == (1, 2, 4, 4)
    assert patch.area() == 6
    assert left.without(np.ones((6, 5), bool)).box() == (0, 0, 0, 0)
