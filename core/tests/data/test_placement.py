"""Canvases that are not drawn: drawing, cropping and moving boxes on them, and who is given one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from det_core.contracts import PlacingTransform, Sample
from det_core.data.data_config import FlipConfig, ResizeConfig
from det_core.data.placement import clipped, cropped, drawn, moved
from det_core.data.resize import resize_image
from det_core.data.transforms import apply_transforms, resize
from det_core.structures import Key
from det_ops import Canvas

IMAGE = torch.arange(3 * 2 * 4, dtype=torch.uint8).reshape(3, 2, 4)
CANVAS = Canvas(height=6, width=9, top=1, left=3, fill=(200, 201, 202))


def placed(canvas: Canvas | None = CANVAS) -> Sample:
    return Sample(
        image=IMAGE,
        canvas=canvas,
        boxes=torch.tensor([[3.0, 1.0, 7.0, 3.0]]),
        labels=torch.tensor([0]),
        ignored=torch.tensor([False]),
    )


def test_a_canvas_is_drawn_around_the_image() -> None:
    assert placed().size == (6, 9)
    done = drawn(placed())
    assert done.canvas is None
    assert done.image.shape == (3, 6, 9)
    assert torch.equal(done.image[:, 1:3, 3:7], IMAGE)
    outside = torch.ones(6, 9, dtype=torch.bool)
    outside[1:3, 3:7] = False
    assert (done.image[:, outside] == torch.tensor([200, 201, 202])[:, None]).all()
    assert drawn(placed(None)).image is IMAGE


@settings(max_examples=200, deadline=None)
@given(st.tuples(st.integers(0, 8), st.integers(0, 5)), st.tuples(st.integers(1, 9), st.integers(1, 6)), st.booleans())
def test_a_crop_of_a_canvas_is_the_crop_of_its_drawing(
    low: tuple[int, int], size: tuple[int, int], nested: bool
) -> None:
    x1, y1 = low
    crop = (x1, y1, min(x1 + size[0], 9), min(y1 + size[1], 6))
    expected = drawn(placed()).image[:, crop[1] : crop[3], crop[0] : crop[2]]
    image, canvas = cropped(IMAGE, CANVAS, crop)
    if nested and min(expected.shape[1:]) > 1:
        within = (1, 1, int(expected.shape[2]), int(expected.shape[1]))
        expected = expected[:, 1:, 1:]
        image, canvas = cropped(image, canvas, within)
    again = Sample(image=image, canvas=canvas, boxes=torch.zeros(0, 4), labels=torch.zeros(0), ignored=torch.zeros(0))
    assert again.size == tuple(expected.shape[1:])
    assert torch.equal(drawn(again).image, expected)


def test_a_crop_copies_no_pixels() -> None:
    for canvas, crop in ((None, (1, 0, 3, 2)), (CANVAS, (4, 0, 9, 3)), (CANVAS, (4, 1, 6, 3))):
        image, _ = cropped(IMAGE, canvas, crop)
        assert image.untyped_storage().data_ptr() == IMAGE.untyped_storage().data_ptr()
    assert cropped(IMAGE, CANVAS, (4, 1, 6, 3))[1] is None  # pixels everywhere
    assert cropped(IMAGE, CANVAS, (0, 0, 3, 6))[1] is None  # nowhere, so that is drawn


def test_boxes_are_moved_and_clipped() -> None:
    boxes = torch.tensor([[1.0, 2.0, 5.0, 6.0], [-1.0, 0.0, 2.5, 9.0]])
    assert moved(boxes, 2, -3, (4, 6)).tolist() == [[3, 0, 6, 3], [1, 0, 4.5, 4]]
    assert clipped(boxes, (4, 6)).tolist() == [[1, 2, 5, 4], [0, 0, 2.5, 4]]
    assert boxes.tolist() == [[1, 2, 5, 6], [-1, 0, 2.5, 9]]
    assert clipped(torch.zeros(0, 4), (4, 6)).shape == (0, 4)


COORDINATES = st.floats(-50, 900, width=32)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(COORDINATES, COORDINATES, COORDINATES, COORDINATES), max_size=12),
    st.integers(-300, 300),
    st.integers(1, 800),
    st.booleans(),
)
def test_boxes_have_the_values_of_torch(boxes: list[tuple[float, ...]], shift: int, side: int, flip_x: bool) -> None:
    """Moved, clipped, resized and mirrored: each operation rounds to float32 once, as torch's."""
    given_boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    limits = torch.tensor([side, 640, side, 640], dtype=torch.float32)
    shifts = torch.tensor([shift, -shift, shift, -shift], dtype=torch.float32)
    assert torch.equal(moved(given_boxes, shift, -shift, (640, side)), (given_boxes + shifts).clamp(min=0).min(limits))
    factors = torch.tensor([side / 4, 77 / 2] * 2, dtype=torch.float32)
    expected = given_boxes * factors
    if flip_x:
        expected = torch.stack([side - expected[:, 2], expected[:, 1], side - expected[:, 0], expected[:, 3]], 1)
    count = len(given_boxes)
    whole = Sample(image=IMAGE, boxes=given_boxes, labels=torch.zeros(count), ignored=torch.zeros(count))
    assert torch.equal(resize(whole, (77, side), flip_x=flip_x).boxes, expected)


@pytest.mark.parametrize("arithmetic", ["fixed_point", "float"])
def test_resizing_reads_through_the_canvas(arithmetic: str) -> None:
    config = ResizeConfig(scales=((20, 10),), keep_ratio=False, arithmetic=arithmetic)
    transforms = [config.build(), FlipConfig(probability=1.0).build()]
    found, expected = (apply_transforms(x, transforms, Key()) for x in (placed(), drawn(placed())))
    assert found.canvas is None
    assert torch.equal(found.image, expected.image)
    assert torch.equal(found.boxes, expected.boxes)


def test_resizing_to_the_same_size_draws_it() -> None:
    config = ResizeConfig(scales=((9, 6),), keep_ratio=False)
    assert torch.equal(apply_transforms(placed(), [config.build()], Key()).image, drawn(placed()).image)
    assert torch.equal(apply_transforms(placed(), [], Key()).image, drawn(placed()).image)


def test_only_placing_transforms_are_given_a_canvas() -> None:
    seen: list[Canvas | None] = []

    class Placing:
        def __call__(self, sample: Sample, /) -> Sample:
            raise AssertionError("`on_canvas` is called instead")

        def on_canvas(self, sample: Sample, /) -> Sample:
            seen.append(sample.canvas)
            return sample

    def plain(sample: Sample) -> Sample:
        seen.append(sample.canvas)
        return sample

    assert isinstance(Placing(), PlacingTransform)
    assert isinstance(ResizeConfig(scales=((9, 6),)).build(), PlacingTransform)
    assert not isinstance(plain, PlacingTransform)
    done = apply_transforms(placed(), [Placing(), plain, Placing()], Key())
    assert seen == [CANVAS, None, None]
    assert done.canvas is None


def test_a_canvas_is_of_8_bits() -> None:
    with pytest.raises(ValueError, match=r"image is \(3, 2, 4\) torch.float32, expected \(C, H, W\) torch.uint8"):
        resize_image(IMAGE.float(), (4, 4), "float", canvas=CANVAS)


def test_pillow_resizes_a_drawn_canvas() -> None:
    """Its antialiased resize cannot read through a placement."""
    resize = ResizeConfig(scales=((64, 64),), keep_ratio=False, arithmetic="antialiased").build()
    found, plain = apply_transforms(placed(), [resize], Key()), resize(drawn(placed()))
    assert found.canvas is None
    assert found.size == (64, 64)
    assert torch.equal(found.image, plain.image)
