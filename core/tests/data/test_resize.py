"""The 8-bit resize: hand-computed pixels, and closeness to torch's own."""

import pytest
import torch
from torch.nn import functional as F

from det_core.data.resize import resize_image
from det_core.data.transforms import keep_ratio_size


def test_twice_the_width_by_hand():
    image = torch.tensor([[[0, 100]]], dtype=torch.uint8)
    assert resize_image(image, (1, 4)).tolist() == [[[0, 25, 75, 100]]]


def test_half_the_height_takes_the_mean_of_two_rows():
    image = torch.tensor([[[10], [20], [200], [100]]], dtype=torch.uint8)
    assert resize_image(image, (2, 1)).tolist() == [[[15], [150]]]


def test_the_same_size_changes_nothing():
    image = torch.randint(0, 256, (3, 7, 5), dtype=torch.uint8)
    assert torch.equal(resize_image(image, (7, 5)), image)


def test_one_pixel_fills_any_size():
    image = torch.full((3, 1, 1), 77, dtype=torch.uint8)
    assert torch.equal(resize_image(image, (4, 9)), torch.full((3, 4, 9), 77, dtype=torch.uint8))


@pytest.mark.parametrize("size", [(13, 31), (50, 20), (37, 23), (5, 90)])
def test_never_more_than_a_level_from_floating_point(size):
    image = torch.randint(0, 256, (3, 37, 23), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    exact = F.interpolate(image[None].double(), size=size, mode="bilinear", align_corners=False)[0]
    assert (resize_image(image, size).double() - exact).abs().max() <= 1.0


def test_another_type_is_refused():
    with pytest.raises(ValueError, match=r"image is \(3, 4, 4\) torch.float32, expected \(C, H, W\) torch.uint8"):
        resize_image(torch.zeros(3, 4, 4), (2, 2))


def test_floating_point_keeps_fractions():
    image = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    assert resize_image(image, (1, 4), "float").tolist() == [[[0, 0.25, 0.75, 1]]]
    assert resize_image(image.double(), (1, 4), "float").dtype == torch.float64


@pytest.mark.parametrize(("rounding", "size"), [("nearest", (160, 238)), ("down", (160, 237))])
def test_rounding_of_a_new_side(rounding, size):
    assert keep_ratio_size((101, 150), (250, 160), rounding) == size  # 150 * 160 / 101 = 237.6
