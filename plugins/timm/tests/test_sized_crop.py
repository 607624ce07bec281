"""The crop of DETR's augmentation: sizes, what is kept of objects, and its errors."""

from __future__ import annotations

import pytest
import torch

from det_core.contracts import Sample
from det_core.data.transforms import apply_transforms
from det_core.errors import ConfigError
from det_core.settings import evolve
from det_core.specs import RGB, PixelFormat
from det_core.structures import Key
from det_core.testing import contract_checks
from det_plugin_timm.config import SizedCropConfig

CONFIG = SizedCropConfig(scales=((100, 50), (100, 80)), sides=(20, 40), probability=1.0)


def sample_of(height: int, width: int) -> Sample:
    boxes = torch.tensor([[0.0, 0.0, width, height], [2.0, 3.0, 6.0, 8.0]])
    masks = torch.zeros(2, height, width, dtype=torch.uint8)
    masks[0] = 1
    masks[1, 3:8, 2:6] = 1
    image = torch.arange(3 * height * width).remainder(251).reshape(3, height, width).to(torch.uint8)
    return Sample(image=image, boxes=boxes, labels=torch.tensor([0, 1]), ignored=torch.zeros(2).bool(), masks=masks)


@pytest.mark.parametrize("config", [SizedCropConfig(), CONFIG], ids=["default", "small"])
def test_the_contract_of_transforms(config: SizedCropConfig) -> None:
    contract_checks.check_transform(config)


def test_windows_have_sides_in_the_range_of_the_resized_image() -> None:
    sizes = set()
    for index in range(200):
        made = apply_transforms(sample_of(50, 100), [CONFIG.build()], Key(index=index))
        height, width = made.size
        sizes.add(made.size)
        assert 20 <= height <= 40
        assert 20 <= width <= 40
        assert made.masks is not None
        assert tuple(made.masks.shape[1:]) == (height, width)
        assert made.boxes[0].tolist() == [0, 0, width, height]  # the object that fills the image fills the window
        assert len(made.boxes) == len(made.labels) == len(made.masks)
    assert {20, 40} <= {height for height, _ in sizes}
    assert {20, 40} <= {width for _, width in sizes}


def test_a_smaller_image_is_kept_whole() -> None:
    config = evolve(CONFIG, scales=((30, 10),))
    for index in range(20):
        height, width = apply_transforms(sample_of(10, 30), [config.build()], Key(index=index)).size
        assert height == 10
        assert 20 <= width <= 30


def test_objects_outside_of_the_window_are_dropped() -> None:
    """The second object is a small one in the top left corner."""
    kept = {
        tuple(apply_transforms(sample_of(50, 100), [CONFIG.build()], Key(index=index)).labels.tolist())
        for index in range(100)
    }
    assert kept == {(0,), (0, 1)}


def test_half_of_the_images_are_cropped() -> None:
    config = evolve(CONFIG, probability=0.5)
    sizes = [apply_transforms(sample_of(50, 100), [config.build()], Key(index=i)).size for i in range(200)]
    assert 60 < sizes.count((50, 100)) < 140


def test_the_range_of_sides_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"SizedCropConfig.sides: found \(9, 8\): the first value must be at most"):
        SizedCropConfig(sides=(9, 8))


def test_images_that_it_takes() -> None:
    assert SizedCropConfig().refusal(RGB) == ""
    assert "resizes only 8-bit images" in SizedCropConfig().refusal(PixelFormat(channels=1, bits=16))
