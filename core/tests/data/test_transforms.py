"""Resizing, flipping, and randomness that follows from a key."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torchvision.transforms import v2

from det_core.contracts import Sample
from det_core.data.data_config import ColorJitterConfig, FlipConfig, ResizeConfig
from det_core.data.loader import prepare
from det_core.data.transforms import V2, apply_transforms, keep_ratio_size
from det_core.model.postprocess import to_original
from det_core.structures import Key


def sample(height: int = 40, width: int = 60, **more: Any) -> Sample:
    """Two boxes with the masks that fill them, a class map and proposals."""
    boxes = torch.tensor([[6.0, 8, 30, 20], [40, 0, 60, 40]])
    masks = torch.zeros(2, height, width, dtype=torch.uint8)
    masks[0, 8:20, 6:30] = 1
    masks[1, 0:40, 40:60] = 1
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values: dict[str, Any] = {
        "image": image,
        "boxes": boxes,
        "labels": torch.tensor([4, 2]),
        "ignored": torch.tensor([False, True]),
        "masks": masks,
        "semantic": masks[0] * 255,
        "proposals": boxes[:1] + 1,
        "file": "a.png",
        "image_id": 5,
    }
    return Sample(**{**values, **more})


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((480, 640), (1333, 800), (800, 1067)),  # 640 * 800 / 480 = 1066.67
        ((427, 640), (1333, 800), (800, 1199)),
        ((300, 1000), (1333, 800), (400, 1333)),  # the long edge binds: 300 * 1.333 = 399.9
        ((1000, 300), (1333, 800), (1333, 400)),
        ((256, 256), (1333, 800), (800, 800)),
        ((7, 1000), (500, 300), (4, 500)),  # 3.5 goes up
        ((1, 5000), (100, 100), (1, 100)),  # never to nothing
    ],
)
def test_keep_ratio_rounding(size: tuple[int, int], scale: tuple[int, int], expected: tuple[int, int]) -> None:
    assert keep_ratio_size(size, scale) == expected


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 2000), st.integers(1, 2000))
@settings(max_examples=200, deadline=None)
def test_keep_ratio_stays_within_bounds(height: int, width: int, a: int, b: int) -> None:
    new = keep_ratio_size((height, width), (a, b))
    assert max(new) <= max(a, b)
    assert min(new) <= max(min(a, b), 1)
    assert max(new) == max(a, b) or min(new) == min(a, b)


def test_resize_scales_everything_by_new_over_old() -> None:
    config = ResizeConfig(scales=((91, 61),))  # factor min(91 / 60, 61 / 40) = 1.51667
    done = apply_transforms(sample(), [config.build()], Key())
    assert done.size == (61, 91)
    x, y = 91 / 60, 61 / 40
    assert torch.allclose(done.boxes, torch.tensor([[6 * x, 8 * y, 30 * x, 20 * y], [40 * x, 0, 91, 61]]), atol=1e-5)
    assert done.proposals is not None
    assert torch.allclose(done.proposals, torch.tensor([[7 * x, 9 * y, 31 * x, 21 * y]]), atol=1e-5)
    assert done.image.dtype == torch.uint8
    assert done.masks is not None
    assert done.masks.dtype == torch.uint8
    rows = ((torch.arange(61) * 40 / 61).floor() >= 8) & ((torch.arange(61) * 40 / 61).floor() < 20)
    columns = ((torch.arange(91) * 60 / 91).floor() >= 6) & ((torch.arange(91) * 60 / 91).floor() < 30)
    assert torch.equal(done.masks[0], (rows[:, None] & columns).to(torch.uint8))
    assert done.semantic is not None
    assert done.semantic.dtype == torch.uint8
    assert torch.equal(done.semantic, done.masks[0] * 255)
    assert done.labels.tolist() == [4, 2]
    assert (done.file, done.image_id) == ("a.png", 5)


@pytest.mark.parametrize("size", [(80, 120), (61, 91), (23, 35)])
def test_resize_is_bilinear_without_antialiasing_to_a_level(size: tuple[int, int]) -> None:
    image = sample().image
    done = apply_transforms(sample(), [ResizeConfig(scales=((size[1], size[0]),), keep_ratio=False).build()], Key())
    exact = torch.nn.functional.interpolate(image[None].float(), size, mode="bilinear", align_corners=False)[0]
    assert done.size == size
    assert float((done.image.float() - exact).abs().max()) <= 1.0


def test_without_ratio_a_scale_is_width_and_height() -> None:
    done = apply_transforms(sample(), [ResizeConfig(scales=((30, 80),), keep_ratio=False).build()], Key())
    assert done.size == (80, 30)
    assert done.boxes.tolist() == [[3, 16, 15, 40], [20, 0, 30, 80]]


def test_resize_without_objects() -> None:
    empty = sample(
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        proposals=None,
        semantic=None,
        ignored=torch.zeros(0, dtype=torch.bool),
        masks=torch.zeros(0, 40, 60, dtype=torch.uint8),
    )
    transforms = [
        ResizeConfig(scales=((90, 60),)).build(),
        FlipConfig(probability=1.0).build(),
        ColorJitterConfig(probability=1.0).build(),
    ]
    done = apply_transforms(empty, transforms, Key())
    assert done.boxes.shape == (0, 4)
    assert done.masks is not None
    assert done.masks.shape == (0, 60, 90)


def test_choice_and_range_of_scales() -> None:
    choice = ResizeConfig(scales=((90, 60), (120, 80))).build()
    sizes = {apply_transforms(sample(), [choice], Key(index=i)).size for i in range(20)}
    assert sizes == {(60, 90), (80, 120)}
    spread = ResizeConfig(scales=((150, 50), (150, 54)), mode="range").build()
    sizes = {apply_transforms(sample(), [spread], Key(index=i)).size for i in range(60)}
    assert {height for height, _ in sizes} == {50, 51, 52, 53, 54}


def test_horizontal_flip() -> None:
    done = apply_transforms(sample(), [FlipConfig(probability=1.0).build()], Key())
    original = sample()
    assert torch.equal(done.image, original.image.flip(-1))
    assert done.boxes.tolist() == [[30, 8, 54, 20], [0, 0, 20, 40]]
    assert done.proposals is not None
    assert done.proposals.tolist() == [[29, 9, 53, 21]]
    assert original.masks is not None
    assert done.masks is not None
    assert torch.equal(done.masks, original.masks.flip(-1))
    assert type(done.boxes) is torch.Tensor
    assert type(done.image) is torch.Tensor


def test_vertical_flip() -> None:
    done = apply_transforms(sample(), [FlipConfig(probability=0.0, vertical_probability=1.0).build()], Key())
    assert torch.equal(done.image, sample().image.flip(-2))
    assert done.boxes.tolist() == [[6, 20, 30, 32], [40, 0, 60, 40]]


def test_two_flips_after_a_resize_both_apply() -> None:
    """Only the first is done in the pass over the image that resizes."""
    transforms = [c.build() for c in (ResizeConfig(scales=((60, 40),)), FlipConfig(probability=1.0))]
    transforms.append(FlipConfig(probability=0.0, vertical_probability=1.0).build())
    done = apply_transforms(sample(), transforms, Key())
    assert torch.equal(done.image, sample().image.flip((-2, -1)))
    assert done.boxes.tolist() == [[30, 20, 54, 32], [0, 0, 20, 40]]


def test_flip_half_the_time() -> None:
    flip = [FlipConfig().build()]
    flipped = [apply_transforms(sample(), flip, Key(index=i)).boxes[0, 0] == 30 for i in range(400)]
    assert 150 < sum(map(bool, flipped)) < 250


def test_randomness_follows_from_the_key_alone() -> None:
    transforms = [
        ResizeConfig(scales=((90, 50), (120, 80)), mode="range").build(),
        FlipConfig().build(),
        ColorJitterConfig(probability=1.0).build(),
    ]
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = apply_transforms(sample(), transforms, Key(1, 2, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    again = apply_transforms(sample(), transforms, Key(1, 2, 3, 4))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.boxes, again.boxes)
    keys = (Key(0, 2, 3, 4), Key(1, 0, 3, 4), Key(1, 2, 0, 4))
    others = [apply_transforms(sample(), transforms, key) for key in keys]
    assert all(o.size != first.size or not torch.equal(o.image, first.image) for o in others)


class Cut:
    """Keeps the left part of an image and leaves boxes as they are."""

    def __call__(self, given: Sample, /) -> Sample:
        import attrs

        masks = None if given.masks is None else given.masks[..., :36]
        return attrs.evolve(given, image=given.image[..., :36], masks=masks, semantic=None)


def test_boxes_are_clipped_and_vanished_ones_dropped() -> None:
    done = apply_transforms(sample(), [Cut()], Key())
    assert done.boxes.tolist() == [[6, 8, 30, 20]]
    assert done.labels.tolist() == [4]
    assert done.ignored.tolist() == [False]
    assert done.masks is not None
    assert done.masks.shape == (1, 40, 36)


def test_any_v2_transform_can_be_wrapped() -> None:
    done = apply_transforms(sample(), [V2(v2.RandomCrop((40, 30))), V2(v2.RandomGrayscale(1.0))], Key(index=3))
    assert done.size == (40, 30)
    assert torch.equal(done.image[0], done.image[1])
    assert done.masks is not None
    assert len(done.boxes) == len(done.masks) == len(done.labels)
    crop = V2(v2.RandomIoUCrop(sampler_options=[0.5]))
    assert "RandomIoUCrop" in repr(crop)
    cropped = apply_transforms(sample(proposals=None), [crop], Key(index=1))
    assert len(cropped.boxes) == len(cropped.labels) == len(cropped.masks if cropped.masks is not None else ())


def test_a_transform_that_removes_boxes_only_is_told() -> None:
    def lose(parts: dict[str, Any]) -> dict[str, Any]:
        return {**parts, "boxes": parts["boxes"][:1]}

    with pytest.raises(ValueError, match=r"changed the number of only some annotation parts: .*'boxes': 1"):
        apply_transforms(sample(), [V2(lose)], Key())


def test_boxes_resized_by_pixels_keep_their_last_pixel() -> None:
    """mmdet 0.x and 1.x: first and last pixels are multiplied by one factor, before the sides are rounded."""
    boxes, proposals = torch.tensor([[10.0, 4.0, 31.0, 20.0]]), torch.tensor([[0.0, 0.0, 61.0, 40.0]])
    given = sample(40, 61, boxes=boxes, proposals=proposals)
    resize = ResizeConfig(scales=((100, 80),), boxes="pixels").build()
    done, factor = resize(given), 100 / 61
    assert done.size == (66, 100)
    assert done.pixel_scale == (factor, factor)
    assert done.proposals is not None
    expected = torch.tensor([[10 * factor, 4 * factor, 30 * factor + 1, 19 * factor + 1]])
    assert torch.allclose(done.boxes, expected)
    assert torch.allclose(done.proposals, torch.tensor([[0.0, 0.0, 60 * factor + 1, 39 * factor + 1]]))
    info = prepare(given, [resize], Key()).info
    assert (info.scale, info.inclusive) == ((factor, factor), True)
    assert torch.allclose(to_original(done.boxes, info), given.boxes)
    stretched = ResizeConfig(scales=((122, 60),), keep_ratio=False, boxes="pixels").build()(given)
    assert stretched.pixel_scale == (1.5, 2.0)


def test_colours_of_a_float_image_change_as_those_of_an_8_bit_image() -> None:
    """v2 takes floats in 0..1, and a resize in floating point leaves 0..255."""
    jitter = ColorJitterConfig(brightness=0.4, contrast=0.3, saturation=0.2, hue=0.0, probability=1.0).build()
    given = sample()
    floating = attrs.evolve(given, image=given.image.float())
    plain, found = (apply_transforms(s, [jitter], Key(3)).image.float() for s in (given, floating))
    assert plain.std() > 20
    assert (plain - found).abs().max() < 3
