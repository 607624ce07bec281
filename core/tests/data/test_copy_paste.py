"""Copy-paste: what is pasted, what is left of the rest, and that it follows from the key alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from det_core.compressed_masks import CompressedMasks, bitmaps_of, mask_boxes
from det_core.contracts import MixingTransform, Sample
from det_core.data.augmentation_config import CopyPasteConfig, FixedSizeCropConfig, ScaleJitterConfig
from det_core.data.coco_dataset import CocoDataset
from det_core.data.copy_paste import blended, paste
from det_core.data.data_config import FlipConfig, ResizeConfig, SampleConfig
from det_core.data.epoch_order import TrainSampler
from det_core.data.loader import LoadedImage, prepare, test_loader, train_loader
from det_core.data.resize import resize_image
from det_core.data.transforms import apply_transforms
from det_core.errors import ConfigError, DataError
from det_core.recipe import DataConfig
from det_core.structures import Key

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
MakeCoco = Callable[..., Path]
SIZE = (40, 60)


def rectangles(*boxes: tuple[int, int, int, int], size: tuple[int, int] = SIZE) -> Tensor:
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    return masks


def sample(*boxes: tuple[int, int, int, int], level: int = 10, size: tuple[int, int] = SIZE, **more: Any) -> Sample:
    """Objects that fill their boxes, with labels 0, 1, ...; one level of gray; semantic ids as labels, 9 elsewhere."""
    masks = rectangles(*boxes, size=size)
    semantic = torch.full(size, 9, dtype=torch.uint8)
    for label, mask in enumerate(masks):
        semantic[mask.bool()] = label
    values: dict[str, Any] = {
        "image": torch.full((3, *size), level, dtype=torch.uint8),
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.arange(len(boxes)),
        "ignored": torch.zeros(len(boxes), dtype=torch.bool),
        "masks": CompressedMasks.of_bitmaps(masks),
        "semantic": semantic,
        "file": "a.png",
    }
    return Sample(**{**values, **more})


BASE = sample((0, 0, 20, 20), (30, 10, 50, 30), (55, 0, 60, 5))
OTHER = sample((10, 0, 20, 40), (30, 10, 50, 29), (52, 30, 60, 40), level=200)
ALL = torch.arange(3)


def test_paste_by_hand() -> None:
    """The first object loses its right half, the second all but a row, the third nothing."""
    done = paste(BASE, OTHER, ALL, min_visible=0.0)
    assert done.boxes.tolist() == [
        *([0, 0, 10, 20], [30, 29, 50, 30], [55, 0, 60, 5]),
        *([10, 0, 20, 40], [30, 10, 50, 29], [52, 30, 60, 40]),
    ]
    assert done.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert done.ignored.tolist() == [False] * 6
    masks = bitmaps_of(done.masks)
    assert torch.equal(mask_boxes(masks), done.boxes)
    assert masks.sum((1, 2)).tolist() == [200, 20, 25, 400, 380, 80]
    covering = bitmaps_of(OTHER.masks).bool().any(0)
    assert torch.equal(done.image, torch.where(covering, 200, 10).to(torch.uint8).expand(3, *SIZE))
    assert done.semantic is not None
    assert OTHER.semantic is not None
    assert BASE.semantic is not None
    assert torch.equal(done.semantic, torch.where(covering, OTHER.semantic, BASE.semantic))
    assert (done.file, done.size) == ("a.png", SIZE)


def test_objects_of_which_little_is_left_are_dropped() -> None:
    assert paste(BASE, OTHER, ALL, min_visible=0.05).labels.tolist() == [0, 1, 2, 0, 1, 2]  # 20 of 400 pixels
    assert paste(BASE, OTHER, ALL, min_visible=0.051).labels.tolist() == [0, 2, 0, 1, 2]
    assert paste(BASE, OTHER, ALL, min_visible=0.5).labels.tolist() == [0, 2, 0, 1, 2]
    assert paste(BASE, OTHER, ALL, min_visible=1.0).labels.tolist() == [2, 0, 1, 2]
    whole = sample((29, 9, 51, 31), level=200)
    assert paste(BASE, whole, torch.tensor([0])).labels.tolist() == [0, 2, 0]  # nothing is left of the second


def test_only_the_chosen_objects_are_pasted() -> None:
    done = paste(BASE, OTHER, torch.tensor([2]))
    assert done.labels.tolist() == [0, 1, 2, 2]
    assert done.boxes[:3].tolist() == BASE.boxes.tolist()
    assert set(done.image.unique().tolist()) == {10, 200}
    assert int((done.image == 200).sum()) == 3 * 80
    assert paste(BASE, OTHER, ALL[:0]) is BASE


def test_boxes_of_objects_that_lose_nothing_are_kept() -> None:
    """Annotated boxes are more exact than those of pixels."""
    given = attrs.evolve(BASE, boxes=BASE.boxes + 0.25)
    other = attrs.evolve(OTHER, boxes=OTHER.boxes - 0.25)
    done = paste(given, other, ALL)
    assert done.boxes[0].tolist() == [0, 0, 10, 20]
    assert done.boxes[2].tolist() == [55.25, 0.25, 60.25, 5.25]
    assert torch.equal(done.boxes[3:], other.boxes)


def test_objects_without_pixels_are_not_pasted_and_not_dropped() -> None:
    masks = rectangles((0, 0, 0, 0), (30, 10, 50, 29))
    other = sample((0, 0, 9, 9), (30, 10, 50, 29), level=200, masks=CompressedMasks.of_bitmaps(masks))
    done = paste(BASE, other, torch.tensor([0, 1]))
    assert done.labels.tolist() == [0, 1, 2, 1]
    blank = attrs.evolve(BASE, masks=CompressedMasks.of_bitmaps(rectangles(*[(0, 0, 0, 0)] * 3)))
    assert paste(blank, OTHER, ALL).labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_paste_into_an_image_without_objects_and_from_one() -> None:
    empty = sample()
    assert paste(empty, OTHER, ALL).labels.tolist() == [0, 1, 2]
    assert paste(BASE, empty, ALL[:0]) is BASE


def test_ignored_regions_lose_pixels_but_are_not_pasted() -> None:
    ignored = torch.tensor([True, False, False])
    done = paste(attrs.evolve(BASE, ignored=ignored), OTHER, ALL)
    assert done.ignored.tolist() == [True, False, False, False, False, False]
    assert done.boxes[0].tolist() == [0, 0, 10, 20]
    transform = CopyPasteConfig().build()
    seen = set()
    for seed in range(60):
        torch.manual_seed(seed)
        chosen = transform.draw(torch.tensor([False, True, False, False]))  # type: ignore[attr-defined]
        assert chosen.tolist() == sorted(set(chosen.tolist()))
        seen.add(tuple(chosen.tolist()))
    assert seen == {(), (0,), (2,), (3,), (0, 2), (0, 3), (2, 3), (0, 2, 3)}
    torch.manual_seed(0)
    few = CopyPasteConfig(max_objects=1).build()
    drawn = {len(few.draw(torch.zeros(9, dtype=torch.bool))) for _ in range(40)}  # type: ignore[attr-defined]
    assert drawn == {0, 1}


@pytest.mark.parametrize("blur", [0.0, 2.0])
def test_pixels_are_those_of_torchvision_s_functions(blur: float) -> None:
    """As its reference does for float images: the blurred mask weighs the two images."""
    image, other = (torch.rand(3, 30, 50) * 255 for _ in range(2))
    covering = rectangles((10, 5, 30, 20), size=(30, 50))[0].bool()
    weight = tv_tensors.Mask(covering[None].float())
    if blur:
        weight = F.gaussian_blur(weight.as_subclass(Tensor), [5, 5], [blur, blur])
    expected = image * (1 - weight) + other * weight
    assert torch.allclose(blended(image, other, covering, blur), expected.as_subclass(Tensor), atol=1e-3)
    bytes_ = blended(image.to(torch.uint8), other.to(torch.uint8), covering, blur)
    assert bytes_.dtype == torch.uint8
    assert float((bytes_.float() - expected).abs().max()) <= 1.5
    flat = torch.full((3, 30, 50), 77, dtype=torch.uint8)
    assert torch.equal(blended(flat, flat, covering, blur), flat)


# With others of a data set


class Images:
    """A data set in memory that remembers what was loaded."""

    def __init__(self, *samples: Sample) -> None:
        self.samples, self.loaded = samples, list[int]()

    def __len__(self) -> int:
        return len(self.samples)

    def load(self, index: int, /) -> Sample:
        self.loaded.append(index)
        return self.samples[index]


def test_the_other_image_is_transformed_by_what_precedes() -> None:
    """By the same transforms with other numbers: here, its own flip."""
    others = Images(sample((50, 0, 60, 10), level=200))
    transforms = [c.build() for c in (FlipConfig(), CopyPasteConfig(max_objects=1))]
    assert isinstance(transforms[1], MixingTransform)
    base = sample((0, 20, 5, 30))
    seen = set()
    for index in range(80):
        done = apply_transforms(base, transforms, Key(index=index), others)
        seen.add(tuple(map(tuple, done.boxes.tolist())))
        assert isinstance(done.masks, CompressedMasks)
        assert torch.equal(mask_boxes(done.masks), done.boxes)
    left, right, low, high = (0, 0, 10, 10), (50, 0, 60, 10), (0, 20, 5, 30), (55, 20, 60, 30)
    assert seen == {(own, pasted) for own in (low, high) for pasted in (left, right)} | {(low,), (high,)}
    assert others.loaded == [0] * 80


def test_transforms_that_follow_apply_to_both() -> None:
    transforms = [c.build() for c in (CopyPasteConfig(), FlipConfig(probability=1.0))]
    for index in range(10):
        plain = apply_transforms(BASE, transforms[:1], Key(index=index), Images(OTHER))
        done = apply_transforms(BASE, transforms, Key(index=index), Images(OTHER))
        assert torch.equal(done.image, plain.image.flip(-1))
        assert torch.equal(bitmaps_of(done.masks), bitmaps_of(plain.masks).flip(-1))


def test_an_image_of_another_size_is_resized() -> None:
    other = sample((0, 0, 30, 20), level=200, size=(20, 30))
    several = (apply_transforms(BASE, [CopyPasteConfig().build()], Key(index=i), Images(other)) for i in range(20))
    done = next(x for x in several if len(x.boxes) == 1)  # it covers all others
    assert done.labels.tolist() == [0]
    assert done.boxes.tolist() == [[0, 0, 60, 40]]
    assert torch.equal(done.image, resize_image(other.image, SIZE))


def test_probability_of_pasting() -> None:
    others = Images(OTHER)
    rare = [CopyPasteConfig(probability=0.25).build()]
    for index in range(200):
        apply_transforms(BASE, rare, Key(index=index), others)
    assert 25 < len(others.loaded) < 75
    never = Images(OTHER)
    assert apply_transforms(BASE, [CopyPasteConfig(probability=0.0).build()], Key(), never).labels.tolist() == [0, 1, 2]
    assert never.loaded == []


def test_two_mixing_transforms_draw_different_images() -> None:
    """The second mixes in an image into which others were pasted, too."""
    others = Images(*(sample((i, 0, i + 2, 2), level=i) for i in range(40)))
    transforms = [CopyPasteConfig().build() for _ in range(2)]
    apply_transforms(sample(), transforms, Key(), others)
    assert len(others.loaded) == 3
    assert len(set(others.loaded)) > 1


def test_everything_follows_from_the_key() -> None:
    others = Images(BASE, OTHER, sample((5, 5, 35, 35), level=90))
    configs = (ScaleJitterConfig(size=(50, 50)), FixedSizeCropConfig(size=(50, 50)), FlipConfig(), CopyPasteConfig())

    def made(key: Key) -> Sample:
        return apply_transforms(BASE, [c.build() for c in configs], key, others)

    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = made(Key(1, 2, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    again = made(Key(1, 2, 3, 4))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.boxes, again.boxes)
    keys = (Key(0, 2, 3, 4), Key(1, 0, 3, 4), Key(1, 2, 0, 4), Key(1, 2, 3, 0))
    assert all(not torch.equal(made(key).image, first.image) for key in keys)


# In the loader


JITTER = (
    ScaleJitterConfig(size=(64, 64), factors=(0.5, 2.0)),
    FixedSizeCropConfig(size=(64, 64)),
    FlipConfig(),
    CopyPasteConfig(),
)


def opened(root: Path, **more: Any) -> CocoDataset:
    return CocoDataset(root / "instances_train.json", root / "images", masks=True, **more)


def same(a: LoadedImage, b: LoadedImage) -> bool:
    return (
        torch.equal(a.image, b.image)
        and torch.equal(a.targets.boxes, b.targets.boxes)
        and torch.equal(a.targets.labels, b.targets.labels)
        and torch.equal(bitmaps_of(a.targets.masks), bitmaps_of(b.targets.masks))
        and a.info == b.info
    )


def all_same(a: Sequence[Sequence[LoadedImage]], b: Sequence[Sequence[LoadedImage]]) -> bool:
    return all(len(x) == len(y) and all(map(same, x, y)) for x, y in zip(a, b, strict=True))


def test_batches_depend_neither_on_workers_nor_on_ranks_nor_on_where_they_start(make_coco: MakeCoco) -> None:
    data, transforms = opened(make_coco()), [c.build() for c in JITTER]

    def loaded(epoch: int = 1, start: int = 0, workers: int = 0, **more: Any) -> list[list[LoadedImage]]:
        plan = TrainSampler(**{"sizes": data.sizes, "images_per_rank": 2, "seed": 5, "repeat": 3, **more})
        return list(train_loader(data, transforms, plan, epoch, start, workers))

    whole = loaded()
    assert len(whole) == 6
    assert all_same(whole, loaded(workers=2))
    assert all_same(whole[4:], loaded(start=4))
    halves = [loaded(images_per_rank=1, world=2, rank=rank) for rank in (0, 1)]
    assert all_same(whole, [a + b for a, b in zip(*halves, strict=True)])
    assert not all_same(whole, loaded(epoch=2))
    assert any(len(i.targets) > 2 for step in whole for i in step)  # no image of the data set has more objects


def test_masks_and_boxes_agree_on_real_images() -> None:
    data = SampleConfig(split="train").build(masks=True, semantic=True)
    transforms = [
        c.build()
        for c in (
            ScaleJitterConfig(size=(256, 256), factors=(0.8, 2.0)),
            FixedSizeCropConfig(size=(256, 256), boxes="masks"),
            FlipConfig(),
            CopyPasteConfig(),
        )
    ]
    counts = []
    for index in range(12):
        image = prepare(data.load(index), transforms, Key(index=index), data)
        masks = bitmaps_of(image.targets.masks)
        counts.append(len(masks))
        assert image.image.shape == (3, 256, 256)
        assert bool((masks.sum((1, 2)) > 0).all())
        if len(masks):
            assert float((mask_boxes(masks) - image.targets.boxes).abs().max()) <= 3
        # The semantic map is of the nuclei: every pixel of a mask has id 0.
        assert image.targets.semantic is not None
        assert not (masks.any(0) & (image.targets.semantic != 0)).any()
    assert max(counts) > 40


def test_bad_images_that_would_be_mixed_in_are_reported(make_coco: MakeCoco) -> None:
    root = make_coco()
    path = root / "images" / "20.png"
    path.write_bytes(path.read_bytes()[:200])
    transforms = [CopyPasteConfig().build()]

    def load(data: CocoDataset, index: int) -> list[LoadedImage]:
        plan = TrainSampler(sizes=data.sizes[:1] if index else data.sizes, images_per_rank=1, repeat=20)
        return [image for step in train_loader(data, transforms, plan, 0) for image in step]

    skipping = opened(root, on_bad_sample="skip")
    images = load(skipping, 1)  # of the first image, which is good, with others pasted
    assert {i.info.image_id for i in images} == {10}
    assert [bad.id for bad in skipping.skipped] == [20]
    with pytest.raises(DataError, match=r"20\.png: image id 20: the image cannot be decoded") as raised:
        load(opened(root), 1)
    assert "--on-bad-sample skip" in str(raised.value)


# Mistakes


def test_without_others_it_says_where_it_belongs(make_coco: MakeCoco) -> None:
    transforms = [CopyPasteConfig().build()]
    expected = r"copy_paste pastes objects of another image, .*; use it in `data\.train_transforms` only"
    with pytest.raises(DataError, match=expected):
        apply_transforms(BASE, transforms, Key())
    with pytest.raises(DataError, match=expected):
        list(test_loader(opened(make_coco()), transforms))


def test_it_is_refused_among_test_transforms() -> None:
    sample_data = {"train": SampleConfig(split="train"), "val": SampleConfig(split="val")}
    with pytest.raises(ConfigError, match=r"test_transforms\[1\]: 'copy_paste' mixes an image with others"):
        DataConfig(**sample_data, test_transforms=(ResizeConfig(), CopyPasteConfig()))
    assert DataConfig(**sample_data, train_transforms=(CopyPasteConfig(),)).train_transforms[0].mixes()


def test_samples_without_masks_or_with_proposals_are_refused() -> None:
    transforms = [CopyPasteConfig().build()]
    bare = attrs.evolve(OTHER, masks=None, file="b.png")
    message = r"b\.png: copy_paste copies objects by their masks, but the sample has none; use data in COCO format"
    with pytest.raises(DataError, match=message):
        apply_transforms(BASE, transforms, Key(), Images(bare))
    proposed = attrs.evolve(BASE, proposals=BASE.boxes)
    with pytest.raises(DataError, match="copy_paste does not support proposals; remove it"):
        apply_transforms(proposed, transforms, Key(), Images(OTHER))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probability": 1.5}, "probability.*at most 1"),
        ({"max_objects": 0}, "max_objects.*at least 1"),
        ({"min_visible": -0.1}, "min_visible.*at least 0"),
        ({"blur": -1.0}, "blur.*at least 0"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CopyPasteConfig(**settings)
    assert repr(CopyPasteConfig(blur=2.0).build()).startswith("CopyPaste(CopyPasteConfig(probability=1.0")
