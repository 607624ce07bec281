"""Scale jitter and crops of a fixed size, compared with torchvision's transforms on boxes, masks and semantic maps."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from det_core.compressed_masks import CompressedMasks, bitmaps_of, mask_boxes
from det_core.contracts import Sample
from det_core.data.augmentation_config import FixedSizeCropConfig, ScaleJitterConfig
from det_core.data.data_config import FlipConfig, ResizeConfig
from det_core.data.placement import drawn
from det_core.data.transforms import apply_transforms, to_tv_tensors, within_image
from det_core.errors import ConfigError
from det_core.structures import Key
from det_ops import Canvas


def sample(height: int = 40, width: int = 60, **more: Any) -> Sample:
    """Three objects with round masks, one of them ignored, a class map and proposals."""
    boxes = torch.tensor([[6.0, 8, 30, 20], [40, 0, 60, 40], [0.5, 20.25, 20, 39.5]])
    boxes = boxes * torch.tensor([width / 60, height / 40] * 2)
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    masks = torch.stack(
        [
            ((x - (b[0] + b[2]) / 2) / (b[2] - b[0])) ** 2 + ((y - (b[1] + b[3]) / 2) / (b[3] - b[1])) ** 2 <= 0.25
            for b in boxes
        ]
    ).to(torch.uint8)
    values: dict[str, Any] = {
        "image": torch.randint(
            0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        ),
        "boxes": boxes,
        "labels": torch.tensor([4, 2, 0]),
        "ignored": torch.tensor([False, True, False]),
        "masks": masks,
        "semantic": torch.randint(0, 5, (height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)),
        "proposals": boxes[:2] + 1,
    }
    return Sample(**{**values, **more})


def compressed(given: Sample) -> Sample:
    assert isinstance(given.masks, Tensor)
    return attrs.evolve(given, masks=CompressedMasks.of_bitmaps(given.masks))


def seeded(seed: int, function: Any, *values: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return function(*values)


def same(found: Sample, expected: Sample) -> None:
    """All but the image is equal; masks as bitmaps."""
    assert found.size == expected.size
    for name in ("boxes", "labels", "ignored", "semantic", "proposals"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            assert ours.dtype == theirs.dtype, name
            assert torch.equal(ours, theirs), name
    ours, theirs = bitmaps_of(found.masks), bitmaps_of(expected.masks)
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert torch.equal(ours, theirs)


# Scale jitter


@pytest.mark.parametrize("size", [(40, 60), (75, 51), (33, 33)])
@pytest.mark.parametrize("target", [(64, 64), (50, 80), (80, 50)])
def test_jitter_is_torchvision_s(size: tuple[int, int], target: tuple[int, int]) -> None:
    """The same draws and sizes; boxes, masks, semantic maps and proposals resized as by torchvision."""
    given = sample(*size)
    # torchvision's argument is (width, height), though its documentation does not say so.
    theirs = v2.ScaleJitter((target[1], target[0]), (0.1, 2.0), antialias=False)
    for seed in range(8):
        ours = ScaleJitterConfig(size=target, rounding="down", arithmetic="float").build()
        found = seeded(seed, ours, given)
        parts = seeded(seed, theirs, to_tv_tensors(given))
        assert found.size == tuple(parts["image"].shape[1:])
        for name in ("boxes", "proposals"):
            assert torch.allclose(getattr(found, name), parts[name].as_subclass(Tensor), atol=1e-4), name
        assert torch.equal(found.masks, parts["masks"].as_subclass(Tensor))
        assert torch.equal(found.semantic, parts["semantic"].as_subclass(Tensor) - 1)
        image = F.resize_image(given.image.float(), list(found.size), antialias=False)
        assert torch.allclose(found.image, image, atol=1e-3)
        same(seeded(seed, ours, compressed(given)), found)


@pytest.mark.parametrize("arithmetic", ["fixed_point", "antialiased"])
def test_jittered_pixels_are_those_of_a_resize(arithmetic: Any) -> None:
    given = sample(120, 90)
    found = seeded(3, ScaleJitterConfig(size=(64, 64), factors=(0.5, 1.5), arithmetic=arithmetic).build(), given)
    height, width = found.size
    again = ResizeConfig(scales=((width, height),), keep_ratio=False, arithmetic=arithmetic).build()(given)
    assert found.image.dtype == torch.uint8
    assert torch.equal(found.image, again.image)
    same(found, again)


def test_sizes_of_a_jitter_by_hand() -> None:
    def size(factor: float, given: tuple[int, int], **more: Any) -> tuple[int, int]:
        config = ScaleJitterConfig(size=(100, 100), factors=(factor, factor), **more)
        return config.build()(sample(*given)).size  # type: ignore[no-any-return]

    assert size(1.0, (40, 60)) == (67, 100)  # 66.67
    assert size(1.0, (40, 60), rounding="down") == (66, 100)
    assert size(0.5, (60, 40)) == (50, 33)
    assert size(0.001, (20, 200)) == (1, 1)  # 0.01 and 0.1


def test_jitter_draws_over_its_range() -> None:
    jitter = ScaleJitterConfig(size=(100, 100), factors=(0.5, 1.0)).build()
    given = sample(20, 20, proposals=None)
    sides = [apply_transforms(given, [jitter], Key(index=i)).size[0] for i in range(300)]
    assert 50 <= min(sides) < 55
    assert 95 < max(sides) <= 100
    assert abs(sum(sides) / len(sides) - 75) < 3
    again = [apply_transforms(given, [jitter], Key(index=i)).size[0] for i in range(5)]
    assert sides[:5] == again


@pytest.mark.parametrize("arithmetic", ["fixed_point", "antialiased"])
def test_jitter_reads_an_image_through_its_canvas(arithmetic: Any) -> None:
    config = ScaleJitterConfig(size=(30, 30), factors=(0.9, 0.9), arithmetic=arithmetic)
    placed = sample(20, 30, canvas=Canvas(40, 50, 3, 7, (1, 2, 3)), masks=None, semantic=None)
    found, expected = (apply_transforms(x, [config.build()], Key()) for x in (placed, drawn(placed)))
    assert found.canvas is None
    assert torch.equal(found.image, expected.image)


# Crops of a fixed size


def torchvision_crop(given: Sample, size: tuple[int, int], top: int, left: int, fill: list[float]) -> Sample:
    """v2's crop, then its padding at the right and the bottom, of all parts."""
    parts = to_tv_tensors(given)
    height, width = min(size[0], given.size[0]), min(size[1], given.size[1])
    padding = [0, 0, size[1] - width, size[0] - height]
    done: dict[str, Any] = {}
    for name in ("image", "boxes", "masks", "semantic", "proposals"):
        if name in parts:
            part = F.crop(parts[name], top, left, height, width)
            is_image = isinstance(part, tv_tensors.Image)
            done[name] = F.pad(part, padding, fill=fill if is_image else 0).as_subclass(Tensor)
    if "semantic" in done:
        done["semantic"] = done["semantic"] - 1  # 0 becomes 255: unlabelled
    return attrs.evolve(given, **done)


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("size", [(40, 60), (24, 31), (64, 48), (30, 90), (70, 80), (40, 33)])
def test_crop_is_torchvision_s(size: tuple[int, int], stays: bool) -> None:
    """The same draws: one number places the crop along both axes. Masks are cut and padded, compressed or not."""
    given = sample()
    config = FixedSizeCropConfig(size=size, fill=(10.0, 20.0, 30.0))
    for seed in range(6):
        place = seeded(seed, torch.rand, 1)
        top, left = (int(max(have - want, 0) * place) for have, want in zip(given.size, size, strict=True))
        expected = torchvision_crop(given, size, top, left, [10.0, 20.0, 30.0])
        found = seeded(seed, config.build(), compressed(given) if stays else given)
        assert found.size == size
        assert torch.equal(found.image, expected.image)
        assert isinstance(found.masks, CompressedMasks) == stays
        same(found, expected)


def test_a_crop_that_is_the_image_draws_nothing() -> None:
    given = sample(proposals=None)
    crop = FixedSizeCropConfig(size=(40, 60)).build()
    with torch.random.fork_rng():
        state = torch.random.get_rng_state()
        same(crop(given), given)
        FixedSizeCropConfig(size=(80, 60)).build()(given)
        assert torch.equal(torch.random.get_rng_state(), state)
        FixedSizeCropConfig(size=(80, 50)).build()(given)
        assert not torch.equal(torch.random.get_rng_state(), state)


def test_objects_outside_the_crop_are_dropped() -> None:
    given = sample(proposals=None)
    crop = FixedSizeCropConfig(size=(40, 20)).build()
    counts = set()
    for index in range(30):
        done = apply_transforms(given, [crop], Key(index=index))
        counts.add(len(done.boxes))
        assert len(done.boxes) == len(done.labels) == len(done.ignored) == len(bitmaps_of(done.masks))
        assert bool((done.boxes[:, 2:] > done.boxes[:, :2]).all())
        assert bool((done.boxes[:, 2] <= 20).all())
    assert counts == {1, 2}


@pytest.mark.parametrize("stays", [False, True])
def test_boxes_of_objects_that_are_cut_follow_their_masks(stays: bool) -> None:
    """An ellipse cut through its middle: the rest is narrower than its clipped box where the box was not cut."""
    given = sample(masks=sample().masks, proposals=None)
    crop = FixedSizeCropConfig(size=(40, 25), boxes="masks")
    for seed in range(12):
        found = seeded(seed, crop.build(), compressed(given) if stays else given)
        clipped = seeded(seed, attrs.evolve(crop, boxes="clipped").build(), given)
        left = int(35 * seeded(seed, torch.rand, 1))
        cut = (given.boxes[:, 0] < left) | (given.boxes[:, 2] > left + 25)
        assert torch.equal(found.boxes[~cut], clipped.boxes[~cut])
        assert torch.equal(found.boxes[cut], mask_boxes(clipped.masks)[cut])
        assert bool((mask_boxes(found.masks)[:, 2:] <= found.boxes[:, 2:].ceil()).all())
    dropped = within_image(drawn(found))
    assert bool(bitmaps_of(dropped.masks).flatten(1).any(1).all())


def test_boxes_follow_masks_only_if_there_are_some() -> None:
    given = sample(masks=None)
    found = seeded(0, FixedSizeCropConfig(size=(40, 25), boxes="masks").build(), given)
    same(found, seeded(0, FixedSizeCropConfig(size=(40, 25)).build(), given))


@pytest.mark.parametrize("fill", [(1, 2, 3), (9, 9, 9)])
@pytest.mark.parametrize("size", [(50, 60), (30, 30), (60, 40), (90, 20)])
def test_a_crop_of_a_canvas_is_that_of_its_drawing(size: tuple[int, int], fill: tuple[int, int, int]) -> None:
    """Whether its colour is that of the padding or not."""
    placed = sample(20, 30, canvas=Canvas(40, 50, 5, 9, fill), masks=None, semantic=None)
    crop = FixedSizeCropConfig(size=size, fill=(1.0, 2.0, 3.0)).build()
    found, expected = (
        apply_transforms(x, [crop, FlipConfig(probability=1.0).build()], Key(2)) for x in (placed, drawn(placed))
    )
    assert torch.equal(found.image, expected.image)
    assert torch.equal(found.boxes, expected.boxes)


def test_a_padded_crop_is_drawn_only_when_it_is_needed() -> None:
    """A resize that follows reads through the canvas."""
    transforms = [c.build() for c in (FixedSizeCropConfig(size=(80, 80)), ResizeConfig(scales=((40, 40),)))]
    done = apply_transforms(sample(), transforms, Key())
    placed = transforms[0].on_canvas(sample())  # type: ignore[attr-defined]
    assert placed.canvas == Canvas(80, 80, 0, 0, (123, 116, 103))
    assert torch.equal(done.image, transforms[1](drawn(placed)).image)


def test_float_images_are_padded_with_the_exact_colour() -> None:
    given = sample(image=sample().image.float() + 0.25)
    done = FixedSizeCropConfig(size=(50, 70)).build()(given)
    assert done.canvas is None
    assert torch.equal(done.image[:, :40, :60], given.image)
    assert torch.allclose(done.image[:, 45, 65], torch.tensor([123.675, 116.28, 103.53]))


@pytest.mark.parametrize("count", [0, 3])
def test_large_scale_jitter_of_images_with_and_without_objects(count: int) -> None:
    given = compressed(sample())
    keep = torch.arange(3) < count
    given = attrs.evolve(
        given, boxes=given.boxes[keep], labels=given.labels[keep], ignored=given.ignored[keep], masks=given.masks[keep]
    )
    configs = (ScaleJitterConfig(size=(64, 64)), FixedSizeCropConfig(size=(64, 64), boxes="masks"), FlipConfig())
    for index in range(20):
        done = apply_transforms(given, [c.build() for c in configs], Key(index=index))
        assert done.size == (64, 64)
        assert isinstance(done.masks, CompressedMasks)
        assert done.masks.shape == (len(done.boxes), 64, 64)
        assert done.semantic is not None
        assert done.semantic.shape == (64, 64)
        tight = mask_boxes(done.masks)
        assert float((tight - done.boxes).abs().max() if len(tight) else 0) <= 2.0  # the rounding of nearest pixels


# Compressed masks


@given(
    st.integers(0, 3),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.integers(0, 9),
    st.integers(0, 9),
    st.data(),
)
@settings(max_examples=80, deadline=None)
def test_compressed_masks_are_cropped_and_padded_as_bitmaps(
    count: int, size: tuple[int, int], bottom: int, right: int, data: st.DataObject
) -> None:
    bitmaps = torch.randint(0, 2, (count, *size), dtype=torch.uint8)
    x1, y1 = data.draw(st.integers(0, size[1] - 1)), data.draw(st.integers(0, size[0] - 1))
    crop = x1, y1, data.draw(st.integers(x1 + 1, size[1])), data.draw(st.integers(y1 + 1, size[0]))
    done = CompressedMasks.of_bitmaps(bitmaps).cropped(crop).padded(bottom=bottom, right=right)
    expected = torch.nn.functional.pad(bitmaps[:, crop[1] : crop[3], crop[0] : crop[2]], (0, right, 0, bottom))
    assert done.shape == tuple(expected.shape)
    assert torch.equal(done.bitmaps(), expected)
    again = done.padded(bottom=2, right=0).mirrored(True, True)
    assert torch.equal(again.bitmaps(), torch.nn.functional.pad(expected, (0, 0, 0, 2)).flip((1, 2)))


def test_boxes_of_masks_by_hand() -> None:
    masks = torch.zeros(3, 6, 9, dtype=torch.uint8)
    masks[0, 2:5, 3:7] = 1
    masks[2, 5, 8] = 1
    expected = [[3, 2, 7, 5], [0, 0, 0, 0], [8, 5, 9, 6]]
    assert mask_boxes(masks).tolist() == expected
    assert mask_boxes(masks.bool()).tolist() == expected
    assert mask_boxes(CompressedMasks.of_bitmaps(masks)).tolist() == expected
    assert mask_boxes(masks[:0]).shape == (0, 4)
    assert mask_boxes(masks).dtype == torch.float32


# Settings


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"factors: found \(2.0, 1.0\): the first value must be at most the second"):
        ScaleJitterConfig(factors=(2.0, 1.0))
    with pytest.raises(ConfigError, match=r"factors.*expected above 0"):
        ScaleJitterConfig(factors=(0.0, 1.0))
    with pytest.raises(ConfigError, match=r"size.*expected at least 1"):
        FixedSizeCropConfig(size=(0, 5))
    with pytest.raises(ConfigError, match=r"fill.*at most 255"):
        FixedSizeCropConfig(fill=(0.0, 0.0, 256.0))
    with pytest.raises(ConfigError, match=r"boxes: found 'tight', allowed: clipped, masks"):
        FixedSizeCropConfig(boxes="tight")  # type: ignore[arg-type]
    assert FixedSizeCropConfig(boxes="masks").needs_masks()
    assert not FixedSizeCropConfig().needs_masks()
    assert not ScaleJitterConfig().mixes()


def test_what_a_transform_is_prints() -> None:
    assert repr(ScaleJitterConfig(size=(8, 8)).build()).startswith("ScaleJitter(ScaleJitterConfig(size=(8, 8)")
    assert repr(FixedSizeCropConfig(size=(8, 8)).build()).startswith("FixedSizeCrop(FixedSizeCropConfig(size=(8, 8)")
