"""Masks between image and head: targets cut from bitmaps, and predictions laid back into the image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from det_core.model import region_masks as module
from det_core.model.region_masks import mask_targets, paste_masks


def bitmap(text: str) -> Tensor:
    """(h, w) uint8 of rows of # and . characters."""
    return torch.tensor([[c == "#" for c in row] for row in text.split()], dtype=torch.uint8)


def by_centre(box: tuple[float, float, float, float], size: tuple[int, int]) -> Tensor:
    """(h, w) bool: the pixels whose centre lies inside the box, its edge included."""
    x1, y1, x2, y2 = box
    x, y = torch.arange(size[1]) + 0.5, torch.arange(size[0]) + 0.5
    return ((y >= y1) & (y <= y2))[:, None] & ((x >= x1) & (x <= x2))


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


def test_only_objects_that_have_regions_become_floats(monkeypatch):
    sizes = []
    pooled = module.det_ops.roi_align

    def recorded(features: Tensor, *arguments: object) -> Tensor:
        sizes.append(len(features))
        return pooled(features, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module.det_ops, "roi_align", recorded)
    masks, _, boxes = random_scene()
    mask_targets(masks, torch.tensor([6, 1, 6, 6]), boxes[:4], (4, 4))
    assert sizes == [2]


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


@pytest.mark.parametrize(
    "box",
    [
        (2.0, 3.0, 9.0, 7.0),
        (2.4, 3.6, 9.6, 7.4),
        (-3.0, -2.0, 5.0, 4.0),
        (10.0, 5.0, 25.0, 14.0),
        (-5.0, -4.0, 30.0, 20.0),
        (3.2, 4.2, 3.9, 4.9),  # inside one pixel
    ],
)
def test_a_full_mask_fills_the_pixels_whose_centre_is_in_the_box(box):
    size = (10, 17)
    found = paste_masks(torch.ones(1, 28, 28), torch.tensor([box]), size)
    assert found.shape == (1, *size)
    assert found.dtype == torch.bool
    assert torch.equal(found[0], by_centre(box, size))


def test_a_mask_of_the_boxs_size_comes_back_as_it_is():
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(8, 8, generator=generator)
    found = paste_masks(mask[None], torch.tensor([[5.0, 2.0, 13.0, 10.0]]), (12, 20))[0]
    assert torch.equal(found[2:10, 5:13], mask >= 0.5)
    assert found.sum() == (mask >= 0.5).sum()


def test_rows_of_a_mask_go_down_and_columns_go_right():
    mask = torch.zeros(1, 2, 2)
    mask[0, 0, 1] = 1.0  # top right
    found = paste_masks(mask, torch.tensor([[0.0, 0.0, 8.0, 4.0]]), (4, 8))[0].nonzero()
    assert (found[:, 0] < 2).all()
    assert (found[:, 1] >= 4).all()
    assert len(found) > 0


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75])
def test_a_pixel_at_the_threshold_belongs_to_the_object(threshold):
    box = torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    at = torch.full((1, 2, 2), threshold)
    assert paste_masks(at, box, (4, 4), threshold).sum() == 4
    assert paste_masks(at - 1e-3, box, (4, 4), threshold).sum() == 0


@pytest.mark.parametrize(
    "box",
    [(3.0, 3.0, 3.0, 6.0), (3.0, 3.0, 6.0, 3.0), (6.0, 6.0, 3.0, 3.0), (40.0, 3.0, 50.0, 6.0), (3.0, -9.0, 6.0, -4.0)],
)
def test_a_box_without_area_or_outside_the_image_has_no_pixels(box):
    found = paste_masks(torch.ones(2, 28, 28), torch.tensor([box, (0.0, 0.0, 2.0, 2.0)]), (10, 17))
    assert found.flatten(1).sum(1).tolist() == [0, 4]


def test_no_masks():
    found = paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (10, 17))
    assert found.shape == (0, 10, 17)
    assert found.dtype == torch.bool


def test_target_and_paste_undo_each_other():
    masks = torch.zeros(1, 40, 60, dtype=torch.uint8)
    masks[0, 8:30, 10:50] = 1
    masks[0, 15:20, 20:40] = 0
    boxes = torch.tensor([[10.0, 8.0, 50.0, 30.0]])
    again = paste_masks(mask_targets(masks, torch.tensor([0]), boxes, (28, 28)), boxes, (40, 60))
    assert (again != masks.bool()).float().mean() < 0.01
