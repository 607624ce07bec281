"""Augmentations keep boxes, masks, ignored regions, labels and semantic maps together."""

from __future__ import annotations

import inspect
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from det_core.compressed_masks import CompressedMasks, bitmaps_of, mask_boxes
from det_core.config.convert import structure
from det_core.contracts import Sample
from det_core.data.affine import affine, moved_boxes, rotation
from det_core.data.augmentation_config import AffineConfig, MixUpConfig, MosaicConfig, RandomCropConfig
from det_core.data.data_config import SampleConfig
from det_core.data.mixed_images import mix_up, mosaic
from det_core.data.random_crop import crop
from det_core.data.transforms import apply_transforms
from det_core.data.v2_config import GEOMETRY, PIXELS, SETTINGS, UNSUPPORTED, V2Config
from det_core.data.v2_transforms import BENDING
from det_core.errors import ConfigError, DataError, DetError
from det_core.recipe import DataConfig
from det_core.slots import TransformConfig
from det_core.structures import UNLABELLED, Key

COUNT = 5


def blobs(index: int, size: tuple[int, int], *, masks: str = "compressed") -> Sample:
    """An image with discs and bars as objects, the last one ignored; the semantic map has the label of the top one."""
    generator = torch.Generator().manual_seed(index)
    height, width = size
    y, x = torch.arange(height)[:, None], torch.arange(width)[None]
    shapes = []
    for number in range(COUNT):
        cy, cx, r = (torch.rand(3, generator=generator) * torch.tensor([height, width, 14.0])).tolist()
        disc = (y - cy) ** 2 + (x - cx) ** 2 <= (r + 4) ** 2
        bar = ((y - cy).abs() <= 2 + r / 2) & ((x - cx).abs() <= 5 + r)
        shapes.append(disc if number % 2 else bar)
    bitmaps = torch.stack(shapes).to(torch.uint8)
    labels = torch.arange(COUNT) % 3
    semantic = torch.full(size, 3, dtype=torch.uint8)
    for bitmap, label in zip(bitmaps, labels.tolist(), strict=True):
        semantic[bitmap.bool()] = label
    kinds: dict[str, Any] = {"compressed": CompressedMasks.of_bitmaps(bitmaps), "bitmaps": bitmaps, "none": None}
    return Sample(
        image=torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator),
        boxes=mask_boxes(bitmaps),
        labels=labels,
        ignored=torch.tensor([False] * (COUNT - 1) + [True]),
        masks=kinds[masks],
        semantic=semantic,
        file=f"{index}.png",
        image_id=index,
    )


class Blobs:
    """Ten samples of different sizes."""

    def __init__(self, masks: str = "compressed") -> None:
        self.masks = masks

    def __len__(self) -> int:
        return 10

    def load(self, index: int, /) -> Sample:
        return blobs(index, (60 + 5 * index, 90 - 4 * index), masks=self.masks)


def transform(**settings: Any) -> TransformConfig:
    return structure(settings, TransformConfig)


# Arguments of the transforms that need some.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "CenterCrop": {"size": [40, 50]},
    "ColorJitter": {"brightness": 0.4, "hue": [-0.1, 0.2]},
    "GaussianBlur": {"kernel_size": 3},
    "JPEG": {"quality": 30},
    "Pad": {"padding": [3, 1, 4, 1], "fill": 7},
    "RandomAdjustSharpness": {"sharpness_factor": 2, "p": 1},
    "RandomAffine": {"degrees": 30, "translate": [0.2, 0.1], "scale": [0.7, 1.3], "shear": 10},
    "RandomCrop": {"size": [40, 40], "pad_if_needed": True},
    "RandomPosterize": {"bits": 4, "p": 1},
    "RandomResize": {"min_size": 40, "max_size": 70},
    "RandomResizedCrop": {"size": 48, "scale": [0.4, 1.0]},
    "RandomRotation": {"degrees": 40, "expand": True},
    "RandomShortestSize": {"min_size": [40, 50]},
    "RandomSolarize": {"threshold": 128, "p": 1},
    "Resize": {"size": [50, 40]},
    "ScaleJitter": {"target_size": [60, 60], "scale_range": [0.5, 1.5]},
}
OWN: list[dict[str, Any]] = [
    {"type": "random_crop"},
    {"type": "random_crop", "sides": [0.3, 0.6], "min_visible": 0.4},
    {"type": "affine", "probability": 1},
    {"type": "affine", "probability": 1, "degrees": 180, "shear": 30, "translate": 0.3, "min_visible": 0},
    {"type": "mosaic", "size": [100, 80]},
    {"type": "mix_up", "probability": 1},
    {"type": "copy_paste"},
    {"type": "scale_jitter", "size": [70, 70], "factors": [0.5, 1.5]},
    {"type": "fixed_size_crop", "size": [50, 60], "boxes": "masks"},
    {"type": "flip", "probability": 1, "vertical_probability": 1},
    {"type": "grayscale", "probability": 1},
    {"type": "gaussian_blur", "probability": 1},
    {"type": "jpeg", "probability": 1},
    {"type": "color_jitter", "probability": 1},
]
ALL = [*OWN, *({"type": "v2", "name": name, **ARGUMENTS.get(name, {})} for name in SETTINGS)]


def name_of(settings: Any) -> str:
    return settings if isinstance(settings, str) else str(settings.get("name", settings["type"]))


CUTS = {
    "CenterCrop",
    "RandomCrop",
    "RandomIoUCrop",
    "RandomResizedCrop",
}  # torchvision clips the boxes of what they cut
RESIZES = {
    "RandomResize",
    "RandomResizedCrop",
    "RandomShortestSize",
    "Resize",
    "ScaleJitter",
    "scale_jitter",
    "copy_paste",
}


@pytest.mark.parametrize("settings", ALL, ids=name_of)
def test_boxes_are_those_of_the_transformed_masks(settings: dict[str, Any]) -> None:
    """Within a pixel where masks are resized; where torchvision crops, the masks are within the boxes."""
    built = [transform(**settings).build()]
    tolerance = 1.0 if name_of(settings) in RESIZES else 0.0
    seen = 0
    for index in range(10):
        after = apply_transforms(Blobs().load(index), built, Key(index=index), Blobs())
        count = len(after.boxes)
        assert len(after.labels) == len(after.ignored) == count
        assert after.masks is not None
        assert after.masks.shape == (count, *after.size)
        bitmaps = bitmaps_of(after.masks)
        visible = bitmaps.flatten(1).bool().any(1)
        difference = (mask_boxes(bitmaps) - after.boxes)[visible]
        if name_of(settings) in CUTS:
            assert bool((difference[:, :2] >= -tolerance).all())
            assert bool((difference[:, 2:] <= tolerance).all())
        else:
            assert bool(visible.all()), "an object without pixels was kept"
            assert bool((difference.abs() <= tolerance).all()), difference
        check_semantic(after, bitmaps, name_of(settings))
        seen += count
    assert seen > 10, "nearly nothing is left to look at"


def check_semantic(sample: Sample, bitmaps: Tensor, name: str) -> None:
    """The map has only known ids, and where all objects are there, their labels exactly where they have pixels."""
    semantic = sample.semantic
    assert semantic is not None
    assert (semantic.shape, semantic.dtype) == (sample.size, torch.uint8)
    assert set(semantic.unique().tolist()) <= {0, 1, 2, 3, UNLABELLED}
    if len(sample.boxes) != COUNT or name in ("mosaic", "mix_up", "copy_paste"):
        return
    objects = torch.where(semantic <= 2, 1, 0).bool()
    assert torch.equal(objects, bitmaps.bool().any(0))


# Data without masks are refused for transforms that need them when they are opened.
KINDS_OF_MASKS = [
    (s, m) for s in ALL for m in ("bitmaps", "none") if m == "bitmaps" or not transform(**s).needs_masks()
]


@pytest.mark.parametrize(("settings", "masks"), KINDS_OF_MASKS, ids=name_of)
def test_compressed_masks_bitmaps_and_no_masks_give_the_same_image(settings: dict[str, Any], masks: str) -> None:
    built = [transform(**settings).build()]
    one = apply_transforms(Blobs().load(3), built, Key(index=3), Blobs())
    two = apply_transforms(Blobs(masks).load(3), built, Key(index=3), Blobs(masks))
    assert torch.equal(one.image, two.image)
    assert one.semantic is not None
    assert two.semantic is not None
    assert torch.equal(one.semantic, two.semantic)
    if masks == "bitmaps":
        assert torch.equal(one.boxes, two.boxes)
        assert torch.equal(bitmaps_of(one.masks), bitmaps_of(two.masks))
    else:
        assert two.masks is None


@pytest.mark.parametrize("settings", ALL, ids=name_of)
def test_everything_follows_from_the_key(settings: dict[str, Any]) -> None:
    built = [transform(**settings).build()]
    one, two = (apply_transforms(Blobs().load(1), built, Key(index=1, epoch=4), Blobs()) for _ in range(2))
    assert torch.equal(one.image, two.image)
    assert torch.equal(one.boxes, two.boxes)


@pytest.mark.parametrize("settings", ALL, ids=name_of)
def test_an_image_without_objects_and_a_float_image(settings: dict[str, Any]) -> None:
    built = [transform(**settings).build()]
    sample = Blobs().load(2)
    assert sample.masks is not None
    none = torch.zeros(0, dtype=torch.int64)
    empty = attrs.evolve(
        sample, boxes=sample.boxes[none], labels=none, ignored=sample.ignored[none], masks=sample.masks[none]
    )
    if name_of(settings) not in ("copy_paste", "mosaic", "mix_up"):
        assert len(apply_transforms(empty, built, Key(index=2), Blobs()).boxes) == 0
    if name_of(settings) == "scale_jitter":  # its fixed-point arithmetic is for 8-bit images
        built = [transform(**settings, arithmetic="float").build()]
    floating = apply_transforms(attrs.evolve(sample, image=sample.image.float()), built, Key(index=2), Blobs())
    whole = apply_transforms(sample, built, Key(index=2), Blobs())
    assert floating.image.dtype == torch.float32
    if name_of(settings) != "GaussianNoise":  # it draws other numbers for other dtypes
        assert float((floating.image - whole.image.float()).abs().mean()) < 2.5


# By hand


def test_a_crop_by_hand() -> None:
    masks = torch.zeros(3, 10, 10, dtype=torch.uint8)
    masks[0, 1:5, 1:5] = 1  # 4 of its 16 pixels stay
    masks[1, 4:6, 4:6] = 1  # stays whole
    masks[2, 0:5, 2:3] = 1  # nothing stays
    sample = Sample(
        image=torch.arange(300).view(3, 10, 10).to(torch.uint8),
        boxes=torch.tensor([[1.0, 1, 5, 5], [3.5, 4, 6, 6], [2.0, 0, 3, 5]]),
        labels=torch.tensor([0, 1, 2]),
        ignored=torch.tensor([False, True, False]),
        masks=masks,
    )
    made = crop(sample, (3, 3, 9, 8), min_visible=0.25)
    assert made.size == (5, 6)
    assert torch.equal(made.image, sample.image[:, 3:8, 3:9])
    assert made.boxes.tolist() == [[0, 0, 2, 2], [0.5, 1, 3, 3]]
    assert (made.labels.tolist(), made.ignored.tolist()) == ([0, 1], [False, True])
    assert torch.equal(bitmaps_of(made.masks), masks[:2, 3:8, 3:9])
    assert len(crop(sample, (3, 3, 9, 8), min_visible=0.26).boxes) == 1


def test_a_mosaic_by_hand() -> None:
    def plain(level: int, size: tuple[int, int]) -> Sample:
        box = torch.tensor([[0.0, 0, size[1], size[0]]])
        image = torch.full((3, *size), level, dtype=torch.uint8)
        semantic = torch.full(size, level, dtype=torch.uint8)
        label, ignored = torch.tensor([level]), torch.tensor([False])
        return Sample(image=image, boxes=box, labels=label, ignored=ignored, semantic=semantic)

    four = [plain(0, (2, 2)), plain(1, (9, 2)), plain(2, (3, 9)), plain(3, (4, 4))]
    made = mosaic(four, (8, 6), (3, 4), MosaicConfig(min_visible=0.0))
    assert made.boxes.tolist() == [[1, 2, 3, 4], [3, 0, 5, 4], [0, 4, 3, 7], [3, 4, 6, 8]]
    assert made.labels.tolist() == [0, 1, 2, 3]
    expected = torch.full((8, 6), 114)
    expected[2:4, 1:3], expected[0:4, 3:5], expected[4:7, 0:3], expected[4:8, 3:6] = 0, 1, 2, 3
    assert torch.equal(made.image[0].long(), expected)
    assert made.semantic is not None
    assert torch.equal(made.semantic.long(), torch.where(expected == 114, UNLABELLED, expected))
    assert mosaic(four, (8, 6), (3, 4), MosaicConfig(min_visible=0.7)).labels.tolist() == [0, 3]


def test_mix_up_by_hand() -> None:
    one, two = blobs(1, (20, 30)), blobs(2, (30, 20))
    made = mix_up(one, two, 0.25, (10.0, 20.0, 30.0))
    assert made.size == (30, 30)
    both = (0.25 * one.image[:, :20, :20].float() + 0.75 * two.image[:, :20, :20].float() + 0.5).floor()
    assert torch.equal(made.image[:, :20, :20].float(), both)
    assert made.image[:, 29, 29].tolist() == [10, 20, 30]
    assert torch.equal(made.boxes, torch.cat([one.boxes, two.boxes]))
    assert torch.equal(made.ignored, torch.cat([one.ignored, two.ignored]))
    assert made.semantic is not None
    assert two.semantic is not None
    assert torch.equal(made.semantic[:, :20], two.semantic)  # of the larger weight
    assert bool((made.semantic[20:, 20:] == UNLABELLED).all())


@pytest.mark.parametrize("angle", [0.0, 25.0, -90.0, 180.0])
@pytest.mark.parametrize("shear", [(0.0, 0.0), (15.0, -20.0)])
def test_the_map_of_boxes_is_that_of_torchvision(angle: float, shear: tuple[float, float]) -> None:
    boxes = torch.tensor([[30.0, 20, 50, 40], [45.0, 30, 46, 31]])
    ours = moved_boxes(boxes, rotation(angle, (3, -2), 0.8, shear, (60, 80)))
    theirs = F.affine_bounding_boxes(
        boxes,
        format=tv_tensors.BoundingBoxFormat.XYXY,
        canvas_size=(60, 80),
        angle=angle,
        translate=[3, -2],
        scale=0.8,
        shear=list(shear),
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)


def test_a_turned_box_without_a_mask_surrounds_its_corners() -> None:
    sample = attrs.evolve(blobs(0, (40, 40), masks="none"), boxes=torch.tensor([[10.0, 15, 30, 25]] * COUNT))
    made = affine(sample, angle=90, translate=(0, 0), scale=1.0)
    torch.testing.assert_close(made.boxes, torch.tensor([[15.0, 10, 25, 30]] * COUNT))


def test_objects_of_which_little_stays_in_the_image_are_dropped() -> None:
    sample = attrs.evolve(blobs(0, (40, 40), masks="none"), boxes=torch.tensor([[0.0, 10, 20, 20]] * COUNT))
    kept = affine(sample, angle=0, translate=(-15, 0), scale=1.0, min_visible=0.24)
    torch.testing.assert_close(kept.boxes, torch.tensor([[0.0, 10, 5, 20]] * COUNT))
    assert affine(sample, angle=0, translate=(-15, 0), scale=1.0, min_visible=0.26).boxes.abs().sum() == 0


# Settings


def test_every_transform_has_the_arguments_of_torchvision() -> None:
    assert not set(PIXELS) & set(GEOMETRY)
    assert set(BENDING) <= set(GEOMETRY)
    for name, allowed in SETTINGS.items():
        theirs = set(inspect.signature(getattr(v2, name)).parameters)
        assert set(allowed) <= theirs, name
        assert theirs <= {*allowed, "center", "inplace", "num_output_channels", "padding_mode"}, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "RandomPosterise"}, "found 'RandomPosterise': no such transform; did you mean \"RandomPosterize\"?"),
        ({"name": "xyz"}, "found 'xyz': no such transform; allowed: CenterCrop, ColorJitter"),
        ({"name": "RandomPosterize", "bitz": 4}, 'bitz: unknown key; did you mean "bits"?'),
        ({"name": "RandomPosterize", "sigma": 4}, "RandomPosterize has no setting sigma; allowed: bits, p"),
        ({"name": "Grayscale", "p": 0.5}, "Grayscale has no setting p; allowed: none"),
        *(({"name": name}, f"found {name!r}: {reason}") for name, reason in UNSUPPORTED.items()),
    ],
)
def test_mistakes_in_names_and_arguments(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        transform(type="v2", **settings)
    assert message in str(error.value)


def test_arguments_that_torchvision_refuses() -> None:
    with pytest.raises(DetError, match="transform RandomPosterize of torchvision: .*bits"):
        V2Config(name="RandomPosterize").build()
    with pytest.raises(DetError, match="transform GaussianBlur of torchvision: Kernel size"):
        V2Config(name="GaussianBlur", kernel_size=4).build()


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (RandomCropConfig, {"sides": (0.9, 0.5)}, "the first value must be at most the second"),
        (AffineConfig, {"shear": 60}, "shear: found 60, expected at least 0 and below 60"),
        (MosaicConfig, {"centre": (0, 0.5)}, "expected above 0 and below 1"),
        (MixUpConfig, {"alpha": 0}, "alpha: found 0, expected above 0"),
    ],
)
def test_settings_are_checked(config: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)


def test_a_kernel_must_be_odd() -> None:
    with pytest.raises(ConfigError, match="kernel_size: found 4: the size must be odd"):
        transform(type="gaussian_blur", kernel_size=4)


@pytest.mark.parametrize("config", [MosaicConfig(), MixUpConfig(probability=1)])
def test_mixing_needs_others_and_no_proposals(config: TransformConfig) -> None:
    built = config.build()
    with pytest.raises(DataError, match="but only training on a data set gives it some"):
        apply_transforms(blobs(0, (20, 20)), [built], Key(index=0))
    with_proposals = attrs.evolve(blobs(0, (20, 20)), proposals=torch.zeros(1, 4))
    with pytest.raises(DataError, match="does not support proposals"):
        apply_transforms(with_proposals, [built], Key(index=0), Blobs())
    with pytest.raises(ConfigError, match="mixes an image with others of the data set, which only training gives"):
        DataConfig(train=SampleConfig(split="train"), val=SampleConfig(split="val"), test_transforms=(config,))
