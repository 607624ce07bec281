"""Targets of a mask head, cut from bitmaps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import det_ops
from det_core.compressed_masks import CompressedMasks
from det_core.model import region_masks as module
from det_core.model.region_masks import mask_targets


def bitmap(text: str) -> Tensor:
    """(h, w) uint8 of rows of # and . characters."""
    return torch.tensor([[c == "#" for c in row] for row in text.split()], dtype=torch.uint8)


PICTURE = bitmap("""
    ......
    .##...
    .####.
    .####.
""")


def test_the_mask_of_a_region_of_its_own_size_is_the_crop():
    found = mask_targets(PICTURE[None], torch.tensor([0]), torch.tensor([[1.0, 1.0, 5.0, 4.0]]), (3, 4))
    assert found.dtype == torch.float32
    assert found[0].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_half_a_covered_bin_counts_and_less_does_not():
    found = mask_targets(PICTURE[None], torch.tensor([0]), torch.tensor([[1.0, 0.0, 5.0, 4.0]]), (2, 2))
    assert found[0].tolist() == [[1, 0], [1, 1]]  # covered: 2 of 4, 0 of 4, 4 of 4, 4 of 4


def test_outside_the_image_there_is_nothing():
    found = mask_targets(PICTURE[None], torch.tensor([0]), torch.tensor([[1.0, 2.0, 5.0, 6.0]]), (4, 4))
    # RoIAlign repeats the last row for one pixel beyond it.
    assert found[0].tolist() == [[1] * 4, [1] * 4, [1] * 4, [0] * 4]
    assert mask_targets(PICTURE[None], torch.tensor([0]), torch.tensor([[7.5, 0.0, 11.5, 4.0]]), (4, 4)).sum() == 0


def test_each_region_is_cut_from_its_own_object():
    masks = torch.stack([PICTURE, 1 - PICTURE, torch.ones_like(PICTURE)])
    boxes = torch.tensor([[0.0, 0.0, 6.0, 4.0]]).repeat(4, 1)
    found = mask_targets(masks, torch.tensor([2, 0, 1, 0]), boxes, (4, 6))
    assert torch.equal(found, masks[[2, 0, 1, 0]].float())


def random_scene() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(7, 20, 30, generator=generator) > 0.5).to(torch.uint8)
    objects = torch.randint(7, (25,), generator=generator)
    corner = torch.rand(25, 2, generator=generator) * 15
    return masks, objects, torch.cat([corner, corner + 1 + torch.rand(25, 2, generator=generator) * 12], 1)


@pytest.mark.parametrize("chunk", [1, 20 * 30 * 2, 20 * 30 * 3 + 5])
def test_chunks_of_objects_change_nothing(monkeypatch, chunk):
    masks, objects, boxes = random_scene()
    whole = mask_targets(masks, objects, boxes, (8, 8))
    monkeypatch.setattr(module, "CHUNK", chunk)
    assert torch.equal(mask_targets(masks, objects, boxes, (8, 8)), whole)
    assert 0.2 < whole.mean() < 0.8


def test_of_many_objects_only_those_that_have_regions_become_floats(monkeypatch):
    sizes = []
    pooled = module.det_ops.roi_align

    def recorded(features: Tensor, *arguments: object) -> Tensor:
        sizes.append(len(features))
        return pooled(features, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module.det_ops, "roi_align", recorded)
    masks, _, boxes = random_scene()
    mask_targets(masks, torch.tensor([6, 1, 6, 6]), boxes[:4], (4, 4))
    monkeypatch.setattr(module, "CHUNK", masks.numel() - 1)
    mask_targets(masks, torch.tensor([6, 1, 6, 6]), boxes[:4], (4, 4))
    assert sizes == [7, 2]


def test_bool_masks_and_float64_boxes():
    masks, objects, boxes = random_scene()
    found = mask_targets(masks.bool(), objects, boxes.double(), (8, 8))
    assert found.dtype == torch.float64
    assert torch.equal(found, mask_targets(masks, objects, boxes.double(), (8, 8)))


@pytest.mark.parametrize("count", [0, 3])
def test_no_regions_no_targets(count):
    found = mask_targets(
        torch.zeros(count, 5, 6, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), (28, 28)
    )
    assert found.shape == (0, 28, 28)


def test_target_and_paste_undo_each_other():
    masks = torch.zeros(1, 40, 60, dtype=torch.uint8)
    masks[0, 8:30, 10:50] = 1
    masks[0, 15:20, 20:40] = 0
    boxes = torch.tensor([[10.0, 8.0, 50.0, 30.0]])
    again = det_ops.paste_masks(mask_targets(masks, torch.tensor([0]), boxes, (28, 28)), boxes, (40, 60))
    assert (again != masks.bool()).float().mean() < 0.01


@pytest.mark.parametrize("compressed", [False, True])
def test_quantised_targets_are_the_resized_crop_of_whole_pixels(compressed):
    """The region's first and last pixel, truncated: 1..4 across and 1..3 down here."""
    masks = CompressedMasks.of_bitmaps(PICTURE[None]) if compressed else PICTURE[None]
    found = mask_targets(masks, torch.tensor([0]), torch.tensor([[1.9, 1.2, 5.5, 4.9]]), (3, 4), "quantised")
    assert found.dtype == torch.float32
    assert found[0].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_quantised_targets_are_those_of_an_8_bit_resize():
    masks, objects, boxes = random_scene()
    found = mask_targets(masks, objects, boxes, (8, 8), "quantised")
    for target, number, (x1, y1, x2, y2) in zip(found, objects.tolist(), boxes.tolist(), strict=True):
        crop = masks[number, int(y1) : int(y2 - 1) + 1, int(x1) : int(x2 - 1) + 1]
        assert torch.equal(target, det_ops.resize_bilinear(crop[None].contiguous(), (8, 8))[0].float())
    assert mask_targets(masks, objects[:0], boxes[:0], (8, 8), "quantised").shape == (0, 8, 8)


def test_a_region_below_a_pixel_has_one_pixel_if_quantised():
    found = mask_targets(PICTURE[None], torch.tensor([0]), torch.tensor([[2.2, 2.1, 2.4, 2.3]]), (2, 2), "quantised")
    assert found.tolist() == [[[1, 1], [1, 1]]]
