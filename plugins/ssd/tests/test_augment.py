"""The augmentation: what happens to images, boxes, masks and semantic maps, and that it is the same for one key."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from attrs import evolve
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from det_core.contracts import Sample, Transform
from det_core.data import placement
from det_core.data.data_config import FlipConfig, ResizeConfig
from det_core.data.epoch_order import TrainSampler
from det_core.data.loader import LoadedImage, prepare, train_loader
from det_core.data.transforms import V2, ImageOnly, apply_transforms
from det_core.errors import ConfigError, DataError
from det_core.load import load_recipe
from det_core.slots import TransformConfig
from det_core.structures import UNLABELLED, Key
from det_core.testing import contract_checks
from det_plugin_ssd.augment import IoUCrop, PhotometricDistort
from det_plugin_ssd.augment_config import IoUCropConfig, PhotometricDistortConfig, ZoomOutConfig

BOXES = ((10.0, 8.0, 30.0, 20.0), (40.0, 30.0, 56.0, 44.0), (2.0, 36.0, 8.0, 46.0))
COLOURS = ((250, 10, 10), (10, 250, 10), (10, 10, 250))
GREY = 90


def sample(boxes: Sequence[tuple[float, float, float, float]] = BOXES) -> Sample:
    """48 x 64: a colour, a mask and a class in every box; elsewhere grey and class 7."""
    image = torch.full((3, 48, 64), GREY, dtype=torch.uint8)
    masks = torch.zeros(len(boxes), 48, 64, dtype=torch.uint8)
    semantic = torch.full((48, 64), 7, dtype=torch.uint8)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        here = (slice(int(y1), int(y2)), slice(int(x1), int(x2)))
        image[(slice(None), *here)] = torch.tensor(COLOURS[i], dtype=torch.uint8)[:, None, None]
        masks[(i, *here)] = 1
        semantic[here] = i
    return Sample(
        image=image,
        boxes=torch.tensor(boxes).view(-1, 4),
        labels=torch.arange(len(boxes)),
        ignored=torch.arange(len(boxes)) == 1,
        masks=masks,
        semantic=semantic,
    )


def applied(config: TransformConfig, index: int = 0, to: Sample | None = None) -> Sample:
    return apply_transforms(sample() if to is None else to, [config.build()], Key(index=index))


def colour(found: Sample, row: int) -> list[int]:
    """In the middle of a box."""
    x1, y1, x2, y2 = found.boxes[row].tolist()
    pixel: list[int] = found.image[:, int((y1 + y2) / 2), int((x1 + x2) / 2)].tolist()
    return pixel


def check_consistent(found: Sample) -> None:
    """Every object has its own label, flag, mask and class where its box is."""
    assert len(found.boxes) == len(found.labels) == len(found.ignored)
    assert found.masks is not None
    assert found.semantic is not None
    assert len(found.masks) == len(found.boxes)
    for row, label in enumerate(found.labels.tolist()):
        x1, y1, x2, y2 = (int(v) for v in found.boxes[row].tolist())
        assert found.ignored[row] == (label == 1)
        assert (found.masks[row] == 1).nonzero().aminmax(dim=0).min.tolist() == [y1, x1]
        assert ((found.masks[row] == 1).nonzero().aminmax(dim=0).max + 1).tolist() == [y2, x2]
        assert (found.semantic[y1:y2, x1:x2] == label).all()
        assert colour(found, row) == list(COLOURS[label])


@pytest.mark.parametrize("config", [ZoomOutConfig(), IoUCropConfig(), PhotometricDistortConfig()], ids=lambda c: c.type)
def test_the_contract_of_configurations(config: TransformConfig) -> None:
    contract_checks.check_config(config)


# zoom out


@pytest.mark.parametrize("index", range(4))
def test_zooming_out_moves_all_that_an_image_has(index: int) -> None:
    found = applied(ZoomOutConfig(probability=1.0), index)
    height, width = found.size
    assert 48 <= height <= 4 * 48
    assert height * 64 == pytest.approx(width * 48, abs=64)
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    assert torch.equal(sides, torch.tensor(BOXES)[:, 2:] - torch.tensor(BOXES)[:, :2])
    check_consistent(found)


def test_the_canvas_is_filled() -> None:
    """With the mean, cut to whole numbers; masks with nothing, semantic maps with unlabelled."""
    found = applied(ZoomOutConfig(probability=1.0, sides=(3.0, 3.0)))
    assert found.size == (144, 192)
    assert found.masks is not None
    assert found.semantic is not None
    canvas = (found.image == torch.tensor([123, 116, 103])[:, None, None]).all(0)
    assert canvas.sum() == 144 * 192 - 48 * 64
    assert (found.semantic[canvas] == UNLABELLED).all()
    assert (found.semantic[~canvas] != UNLABELLED).all()
    assert found.masks[:, canvas].sum() == 0
    assert found.masks.sum() == sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in BOXES)


def test_how_often_it_zooms_out() -> None:
    assert all(applied(ZoomOutConfig(probability=0.0), i).size == (48, 64) for i in range(5))
    zoomed = sum(applied(ZoomOutConfig(), i).size != (48, 64) for i in range(40))
    assert 10 < zoomed < 30


def test_proposals_move_with_the_image() -> None:
    given = evolve(sample(), proposals=torch.tensor(BOXES)[:2])
    found = applied(ZoomOutConfig(probability=1.0), 1, given)
    assert found.proposals is not None
    assert not torch.equal(found.proposals, torch.tensor(BOXES)[:2])
    assert torch.equal(found.proposals, found.boxes[:2])


# crop


def test_a_crop_keeps_objects_whose_centre_is_inside() -> None:
    """Over many draws: who is left keeps label, mask and class; kept and dropped ones both occur."""
    counts = set()
    for index in range(60):
        found = applied(IoUCropConfig(), index)
        height, width = found.size
        assert height >= int(0.3 * 48)
        assert width >= int(0.3 * 64)
        assert found.size == (48, 64) or 0.5 <= width / height <= 2
        assert len(found.boxes) >= 1
        counts.add(len(found.boxes))
        check_consistent(found)
        if len(found.boxes) < len(BOXES):
            check_dropped(found)
    assert counts == {1, 2, 3}


def check_dropped(found: Sample) -> None:
    """The crop's place follows from an object that it kept: a dropped one's centre is outside of it."""
    height, width = found.size
    row = next((i for i, box in enumerate(found.boxes.tolist()) if whole(box, found.labels[i])), None)
    if row is None:
        return
    shift = torch.tensor(BOXES)[found.labels[row], :2] - found.boxes[row, :2]
    for label in set(range(len(BOXES))) - set(found.labels.tolist()):
        x1, y1, x2, y2 = BOXES[label]
        x, y = (x1 + x2) / 2 - shift[0].item(), (y1 + y2) / 2 - shift[1].item()
        assert not (0 < x < width and 0 < y < height)


def whole(box: list[float], label: Tensor) -> bool:
    x1, y1, x2, y2 = BOXES[int(label)]
    return (box[2] - box[0], box[3] - box[1]) == (x2 - x1, y2 - y1)


def test_the_drawn_overlap_is_held() -> None:
    """Of .9 or else the whole image: the crop of a large object is nearly its own."""
    one = sample([(10.0, 8.0, 60.0, 44.0)])
    for index in range(30):
        found = applied(IoUCropConfig(overlaps=(0.9, 1.0)), index, one)
        height, width = found.size
        if (height, width) != (48, 64):
            x1, y1, x2, y2 = found.boxes[0].tolist()
            overlap = (x2 - x1) * (y2 - y1)
            assert overlap / (50 * 36 + height * width - overlap) >= 0.9


def test_an_image_without_objects_stays_whole() -> None:
    empty = sample([])
    found = applied(IoUCropConfig(overlaps=(0.0, 1.0)), 0, empty)
    assert torch.equal(found.image, empty.image)


def test_an_image_too_small_for_a_crop_stays_whole() -> None:
    thin = evolve(
        sample(BOXES[:1]),
        image=torch.zeros(3, 3, 64, dtype=torch.uint8),
        boxes=torch.tensor([[2.0, 0.0, 9.0, 3.0]]),
        masks=None,
        semantic=None,
    )
    assert all(applied(IoUCropConfig(), i, thin).size == (3, 64) for i in range(5))


@pytest.mark.parametrize("boxes", [BOXES, []], ids=["objects", "none"])
def test_proposals_are_refused(boxes: list[tuple[float, float, float, float]]) -> None:
    given = evolve(sample(boxes), proposals=torch.tensor(BOXES))
    with pytest.raises(DataError, match=r"does not support proposals; remove it from the transforms"):
        applied(IoUCropConfig(), 0, given)


def test_its_settings_are_shown() -> None:
    assert repr(IoUCropConfig(tries=7).build()).startswith("IoUCrop(IoUCropConfig(")


# colours


def test_colours_change_and_nothing_else() -> None:
    before, images = sample(), []
    for index in range(12):
        found = applied(PhotometricDistortConfig(), index)
        for part in ("boxes", "labels", "ignored", "masks", "semantic"):
            assert torch.equal(getattr(found, part), getattr(before, part)), part
        assert found.image.dtype == torch.uint8
        images.append(found.image)
    assert len({image.numpy().tobytes() for image in images}) > 8


def test_colours_stay_where_nothing_is_drawn() -> None:
    before = sample()
    found = applied(PhotometricDistortConfig(probability=0.0))
    assert torch.equal(found.image, before.image)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [({"brightness": (1.1, 1.1)}, 99), ({"contrast": (0.5, 0.5)}, 90), ({"saturation": (0.5, 0.5)}, 90)],
)
def test_each_change_on_grey(setting: dict[str, tuple[float, float]], expected: int) -> None:
    """Brightness multiplies; contrast and saturation draw a pixel to grey, which all of them are (rounding aside)."""
    still = {"brightness": (1.0, 1.0), "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": (0.0, 0.0)}
    config = PhotometricDistortConfig(**{**still, **setting}, probability=1.0)
    assert applied(config, 0, sample([])).image.unique().tolist() == [pytest.approx(expected, abs=1)]


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_changes_are_drawn_as_by_torchvision(probability: float) -> None:
    """The same numbers, in the same order; what is drawn next is the same, too."""
    config = PhotometricDistortConfig(probability=probability)
    ours = PhotometricDistort(config)
    theirs = v2.RandomPhotometricDistort(
        config.brightness, config.contrast, config.saturation, config.hue, p=probability
    )
    for seed in range(60):
        torch.manual_seed(seed)
        expected = theirs.make_params([sample().image])
        following = torch.rand(1)
        torch.manual_seed(seed)
        steps, order = ours.draw()
        assert torch.equal(torch.rand(1), following)
        assert all(expected[f"{step}_factor"] == factor for step, factor in steps)
        assert len(steps) == sum(value is not None for name, value in expected.items() if name.endswith("_factor"))
        names = [step for step, _ in steps]
        last = [] if expected["contrast_before"] else ["contrast"]
        kinds = ["brightness", *(["contrast"] if not last else []), "saturation", "hue", *last]
        assert names == [kind for kind in kinds if kind in names]
        permutation = expected["channel_permutation"]
        assert order == (None if permutation is None else permutation.tolist())


# all together


def test_one_key_one_image() -> None:
    transforms = [t.build() for t in load_recipe("ssd/vgg16-300-coco-120e").data.train_transforms]
    first, again, other = (prepare(sample(), transforms, Key(index=i)) for i in (3, 3, 4))
    assert first.image.shape == (3, 300, 300)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.targets.boxes, again.targets.boxes)
    assert not torch.equal(first.image, other.image)


def test_the_loader_gives_the_same_with_and_without_processes() -> None:
    recipe = load_recipe("ssd/vgg16-demo")
    resize = recipe.data.train_transforms[0]
    transforms = [t.build() for t in (ZoomOutConfig(), IoUCropConfig(), resize, PhotometricDistortConfig())]
    data = recipe.open_train()
    sampler = TrainSampler(sizes=data.sizes[:3], images_per_rank=2, group_by_aspect=False)

    def loaded(epoch: int, workers: int) -> dict[int, LoadedImage]:
        steps = train_loader(data, transforms, sampler, epoch, workers=workers)
        return {image.info.key.index: image for step in steps for image in step}

    alone, processes, later = loaded(0, 0), loaded(0, 2), loaded(1, 0)
    assert set(alone) == set(processes) == {0, 1, 2}
    for index, image in alone.items():
        assert torch.equal(image.image, processes[index].image)
        assert torch.equal(image.targets.boxes, processes[index].targets.boxes)
        assert not torch.equal(image.image, later[index].image)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (PhotometricDistortConfig, {"brightness": (0.0, 1.0)}, r"brightness\S*: found .+, expected .*above 0"),
        (
            PhotometricDistortConfig,
            {"contrast": (1.5, 0.5)},
            r"contrast: found .+: the first value must be at most the second",
        ),
        (PhotometricDistortConfig, {"saturation": (-1.0, 1.0)}, r"saturation\S*: found .+, expected .*above 0"),
        (PhotometricDistortConfig, {"hue": (-0.6, 0.1)}, r"hue\S*: found .+, expected .*at least -0.5"),
        (PhotometricDistortConfig, {"probability": 1.1}, r"probability\S*: found .+, expected .*at most 1"),
        (ZoomOutConfig, {"sides": (0.5, 2.0)}, r"sides\S*: found .+, expected .*at least 1"),
        (ZoomOutConfig, {"sides": (4.0, 2.0)}, r"sides: found .+: the first value must be at most the second"),
        (ZoomOutConfig, {"probability": -0.1}, r"probability\S*: found .+, expected .*at least 0"),
        (IoUCropConfig, {"overlaps": ()}, "overlaps: found .+: one value must be 1 or more"),
        (
            IoUCropConfig,
            {"overlaps": (0.5, 0.9)},
            r"overlaps: found \(0.5, 0.9\): one value must be 1 or more, which keeps the image whole",
        ),
        (IoUCropConfig, {"overlaps": (-0.1, 1.0)}, r"overlaps\S*: found .+, expected .*at least 0"),
        (IoUCropConfig, {"sides": (0.0, 1.0)}, r"sides\S*: found .+, expected .*above 0"),
        (IoUCropConfig, {"sides": (0.5, 1.1)}, r"sides\S*: found .+, expected .*at most 1"),
        (IoUCropConfig, {"aspects": (2.0, 0.5)}, r"aspects: found .+: the first value must be at most the second"),
        (IoUCropConfig, {"tries": 0}, r"tries\S*: found .+, expected .*at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(
    config: type[TransformConfig], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_a_mistake_is_placed() -> None:
    with pytest.raises(ConfigError, match=r"data\.train_transforms\[0\].*1 or more, which keeps the image whole"):
        load_recipe("ssd/vgg16-demo", ["data.train_transforms=[{type: iou_crop, overlaps: [0.9]}]"])


def test_crops_are_those_of_torchvision_draw_by_draw():
    """Also the state of the generator afterwards, on which the next transforms depend."""
    config = IoUCropConfig(tries=50)
    theirs = their_crop(config)
    rng = torch.Generator().manual_seed(0)
    for seed in range(60):
        height, width = (int(torch.randint(9, 300, (), generator=rng)) for _ in range(2))
        count = int(torch.randint(1, 9, (), generator=rng))
        low = torch.rand(count, 2, generator=rng) * torch.tensor([width, height])
        boxes = torch.cat([low, low + torch.rand(count, 2, generator=rng) * (torch.tensor([width, height]) - low)], 1)
        given = Sample(
            image=torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=rng),
            boxes=boxes,
            labels=torch.arange(count),
            ignored=torch.zeros(count, dtype=torch.bool),
            masks=torch.randint(0, 2, (count, height, width), dtype=torch.uint8, generator=rng),
        )
        torch.manual_seed(seed)
        expected, state = theirs(given), torch.get_rng_state()
        torch.manual_seed(seed)
        found = IoUCrop(config)(given)
        assert torch.equal(torch.get_rng_state(), state)
        for name in ("image", "boxes", "labels", "masks"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name


# Against torchvision's transforms, one after the other


RESIZE = ResizeConfig(scales=((60, 60),), keep_ratio=False)
ALL = (ZoomOutConfig(), IoUCropConfig(), RESIZE, FlipConfig(vertical_probability=0.3), PhotometricDistortConfig())


def step_by_step(*configs: TransformConfig) -> list[Transform]:
    """The transforms with torchvision's own in their places, none of which sees a canvas or is joined with another."""

    def alone(transform: Transform) -> Transform:
        return lambda sample: transform(sample)

    return [alone(theirs(config)) for config in configs]


def theirs(config: TransformConfig) -> Transform:
    if isinstance(config, ZoomOutConfig):
        fill = {tv_tensors.Image: list(config.fill), "others": 0}
        return V2(v2.RandomZoomOut(fill=fill, side_range=config.sides, p=config.probability))
    if isinstance(config, IoUCropConfig):
        return their_crop(config)
    if isinstance(config, PhotometricDistortConfig):
        ranges = {name: getattr(config, name) for name in ("brightness", "contrast", "saturation", "hue")}
        return ImageOnly(v2.RandomPhotometricDistort(**ranges, p=config.probability))
    return config.build()


def their_crop(config: IoUCropConfig) -> Transform:
    """torchvision's crop, of images that it is able to crop."""
    crop = V2(
        v2.RandomIoUCrop(
            min_scale=config.sides[0],
            max_scale=config.sides[1],
            min_aspect_ratio=config.aspects[0],
            max_aspect_ratio=config.aspects[1],
            sampler_options=list(config.overlaps),
            trials=config.tries,
        )
    )
    return lambda sample: crop(sample) if len(sample.boxes) and min(sample.size) * config.sides[0] >= 1 else sample


def photo(seed: int, *, whole: bool, last: bool) -> Sample:
    """Random pixels, in either layout, with objects; `whole` with masks and a semantic map."""
    rng = torch.Generator().manual_seed(seed)
    height, width, count = (
        int(torch.randint(low, high, (), generator=rng)) for low, high in ((4, 90), (4, 90), (0, 7))
    )
    size = torch.tensor([width, height])
    low = torch.rand(count, 2, generator=rng) * size
    boxes = torch.cat([low, low + torch.rand(count, 2, generator=rng) * (size - low)], 1)
    image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=rng).permute(2, 0, 1)
    maps = torch.randint(0, 2, (count + 1, height, width), dtype=torch.uint8, generator=rng)
    return Sample(
        image=image if last else image.contiguous(),
        boxes=boxes,
        labels=torch.arange(count),
        ignored=torch.rand(count, generator=rng) < 0.2,
        masks=maps[1:] if whole else None,
        semantic=maps[0] if whole else None,
    )


def check_same(found: Sample, expected: Sample) -> None:
    assert found.canvas is None
    assert found.size == expected.size
    for name in ("image", "boxes", "labels", "ignored", "masks", "semantic"):
        ours, torchvisions = getattr(found, name), getattr(expected, name)
        assert (ours is None) is (torchvisions is None), name
        assert ours is None or (ours.dtype == torchvisions.dtype and torch.equal(ours, torchvisions)), name


@pytest.mark.parametrize(
    "configs",
    [
        ALL,
        (ZoomOutConfig(probability=1.0, sides=(1.0, 2.0)), *ALL),  # a canvas on a canvas
        (ZoomOutConfig(probability=1.0), IoUCropConfig(), IoUCropConfig(), RESIZE),
        (ZoomOutConfig(probability=1.0), PhotometricDistortConfig(), IoUCropConfig(), FlipConfig()),
        (ZoomOutConfig(), IoUCropConfig(), evolve(RESIZE, arithmetic="float")),
        (evolve(RESIZE, arithmetic="float"), PhotometricDistortConfig(), ZoomOutConfig(probability=1.0)),
        (ZoomOutConfig(probability=1.0, sides=(2.0, 2.0)), ResizeConfig(scales=((64, 64),)), IoUCropConfig()),
    ],
    ids=["recipe", "nested", "cropped twice", "drawn between", "float", "float before", "kept ratio"],
)
def test_samples_are_those_of_torchvision_step_by_step(configs: tuple[TransformConfig, ...]) -> None:
    """Pixels, boxes, labels and maps of many keys, and the state of the generator for what comes after."""
    ours, torchvisions = [config.build() for config in configs], step_by_step(*configs)
    states: list[Tensor] = []

    def keep_state(sample: Sample) -> Sample:
        states.append(torch.get_rng_state())
        return sample

    for seed in range(120):
        given = photo(seed, whole=seed % 3 == 0, last=seed % 2 == 0)
        found = apply_transforms(given, [*ours, keep_state], Key(index=seed))
        expected = apply_transforms(given, [*torchvisions, keep_state], Key(index=seed))
        check_same(found, expected)
        assert torch.equal(states[-1], states[-2])


@pytest.mark.parametrize("config", [ZoomOutConfig(probability=1.0), IoUCropConfig(), PhotometricDistortConfig()])
def test_a_call_gives_all_pixels(config: TransformConfig) -> None:
    """Without `apply_transforms`, as a plugin may use them."""
    for seed in range(30):
        given = photo(seed, whole=seed % 2 == 0, last=True)
        torch.manual_seed(seed)
        found = config.build()(given)
        torch.manual_seed(seed)
        check_same(found, theirs(config)(given))


def test_a_transform_in_between_sees_the_drawn_canvas() -> None:
    sizes = []

    def look(sample: Sample) -> Sample:
        assert sample.canvas is None
        sizes.append(tuple(sample.image.shape[1:]))
        return sample

    apply_transforms(sample(), [ZoomOutConfig(probability=1.0, sides=(3.0, 3.0)).build(), look], Key())
    assert sizes == [(144, 192)]


def test_a_canvas_is_not_drawn_on_the_way_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("a canvas was drawn")

    monkeypatch.setattr(placement, "_draw", refuse)
    for seed in range(20):
        done = apply_transforms(photo(seed, whole=False, last=True), [c.build() for c in ALL], Key(index=seed))
        assert done.size == (60, 60)


def test_settings_of_all_transforms_are_shown() -> None:
    assert repr(ZoomOutConfig().build()).startswith("ZoomOut(ZoomOutConfig(")
    assert repr(PhotometricDistortConfig().build()).startswith("PhotometricDistort(PhotometricDistortConfig(")
