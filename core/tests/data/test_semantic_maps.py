"""Semantic maps: how they are read, what is refused, and that they go with their image through everything."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from det_core.compressed_masks import bitmaps_of
from det_core.contracts import Sample
from det_core.data.bad_samples import BadImage, BadSamplesError
from det_core.data.data_config import CocoConfig, ColorJitterConfig, FlipConfig, ResizeConfig, SampleConfig
from det_core.data.data_root import LayoutError
from det_core.data.epoch_order import TrainSampler
from det_core.data.loader import test_loader, train_loader
from det_core.data.semantic_maps import map_name, map_of_masks
from det_core.data.transforms import V2, apply_transforms
from det_core.engine.predict import to_targets
from det_core.errors import ConfigError, DataError
from det_core.evaluation.metric_config import CocoEvaluatorConfig
from det_core.model.detector import Preprocess
from det_core.model.detector_config import DetectorConfig, PreprocessConfig
from det_core.recipe import DataConfig, EvaluationConfig, Recipe
from det_core.reports.dataset_report import data_report
from det_core.slots import BackboneConfig, DatasetConfig, RoIHeadConfig, TransformConfig
from det_core.specs import FeatureSpec
from det_core.structures import Key, semantic_batch
from det_core.testing.isolated_plugins import stub_config

MakeCoco = Callable[..., Path]
KEY = Key()
SIZES = {10: (40, 60), 20: (50, 30), 30: (48, 64), 40: (32, 32)}  # (height, width) of conftest's images


def ids_of(image_id: int) -> NDArray[np.uint8]:
    """A map of 5 ids and unlabelled pixels in no order, of an image's size."""
    random = np.random.default_rng(image_id)
    return random.choice(np.array([0, 1, 90, 91, 181, 255], np.uint8), SIZES[image_id])


@pytest.fixture
def root(make_coco: MakeCoco) -> Path:
    """A data set of four images with maps, wide, tall, wide and square."""
    root = make_coco()
    (root / "maps").mkdir()
    for image_id in SIZES:
        Image.fromarray(ids_of(image_id)).save(root / "maps" / f"{image_id}.png")
    return root


def opened(root: Path, **settings: Any) -> Any:
    on_bad_sample = settings.pop("on_bad_sample", "error")
    config = CocoConfig(split="train", semantic_dir="maps", **settings)
    return config.build(str(root), semantic=True, on_bad_sample=on_bad_sample)


# reading


def test_a_map_is_the_files_bytes(root: Path) -> None:
    data = opened(root)
    assert data.semantic_classes == 182
    for index, image_id in enumerate(SIZES):
        found = data.load(index).semantic
        assert found is not None
        assert found.dtype == torch.uint8
        assert np.array_equal(found.numpy(), ids_of(image_id))


def test_targets_hold_class_ids_as_int64_once_they_are_moved(root: Path) -> None:
    targets = opened(root).load(0).targets()
    assert targets.semantic.dtype == torch.uint8
    moved = targets.to("cpu").semantic
    assert moved is not None
    assert moved.dtype == torch.int64
    assert np.array_equal(moved.numpy(), ids_of(10))


def test_indices_into_a_palette_are_ids(root: Path) -> None:
    picture = Image.fromarray(ids_of(10), mode="P")
    picture.putpalette([i // 3 for i in range(768)][::-1])
    picture.save(root / "maps" / "10.png")
    assert Image.open(root / "maps" / "10.png").mode == "P"
    assert np.array_equal(opened(root).load(0).semantic.numpy(), ids_of(10))
    few = Image.fromarray(np.eye(40, 60, dtype=np.uint8), mode="P")
    few.putpalette([200, 0, 0, 0, 200, 0])
    few.save(root / "maps" / "10.png", bits=1)
    assert opened(root).load(0).semantic.sum() == 40


def test_maps_are_read_where_they_are_asked_for(root: Path) -> None:
    data = CocoConfig(split="train", semantic_dir="no such folder").build(str(root))
    assert data.semantic_classes == 0
    assert data.load(0).semantic is None


@pytest.mark.parametrize(
    ("image", "expected"),
    [("a.jpg", "a.png"), ("train/a.b.jpeg", "train/a.b.png"), ("日本 é.png", "日本 é.png"), ("plain", "plain.png")],
)
def test_the_name_of_a_map(image: str, expected: str) -> None:
    assert map_name(image) == expected


# what is refused


def gray_png(path: Path, rows: NDArray[np.uint8], bits: int) -> None:
    """A gray PNG of less than 8 bits per pixel, which PIL reads but does not write."""
    packed = np.packbits(np.unpackbits(rows[..., None], axis=-1)[..., -bits:].reshape(len(rows), -1), axis=1)
    height, width = rows.shape
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))),
        (b"IEND", b""),
    ):
        content += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(content)


def replaced(root: Path, write: Callable[[Path], object]) -> str:
    """What is said at loading image 10 with its map written anew."""
    write(root / "maps" / "10.png")
    with pytest.raises(BadImage) as raised:
        opened(root).load(0)
    text = str(raised.value)
    assert text.startswith(f"{root / 'maps' / '10.png'}: image id 10: ")
    return text.partition("image id 10: ")[2]


def test_a_map_of_another_size(root: Path) -> None:
    said = replaced(root, lambda path: Image.new("L", (40, 60)).save(path))
    assert said == "the semantic map is 40x60 pixels, but its image 60x40; make the map in the size of the image file"


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda path: Image.new("RGB", (60, 40)).save(path), "PNG of mode RGB"),
        (lambda path: Image.new("LA", (60, 40)).save(path), "PNG of mode LA"),
        (lambda path: Image.new("1", (60, 40)).save(path), "PNG of mode 1"),
        (lambda path: Image.fromarray(np.zeros((40, 60), np.uint16)).save(path), "PNG of mode I;16"),
        (lambda path: Image.new("L", (60, 40)).save(path, format="JPEG"), "JPEG of mode L"),
        (lambda path: gray_png(path, np.ones((40, 60), np.uint8), 4), "PNG of mode L;4"),
    ],
)
def test_a_map_of_another_form(root: Path, write: Callable[[Path], object], found: str) -> None:
    assert replaced(root, write) == (
        "a semantic map is a PNG of one channel of 8 bits, the class id of each pixel (mode L, or P with any palette), "
        f"but this is a {found}; save the ids as an 8-bit gray PNG"
    )


def test_ids_that_are_not_allowed(root: Path) -> None:
    ids = np.zeros((40, 60), np.uint8)
    ids[0, :3], ids[1, 0], ids[2] = 182, 254, 255

    def write(path: Path) -> None:
        Image.fromarray(ids).save(path)

    assert replaced(root, write) == (
        "the semantic map has ids that are not allowed: 182, 254 (4 of 2400 pixels); allowed: 0..181 "
        "(`semantic_classes: 182`) and 255 for unlabelled pixels; correct the map, or `semantic_classes` of the data "
        "set"
    )
    assert opened(root, semantic_classes=255).load(0).semantic.max() == 255
    few = opened(root, semantic_classes=183)
    with pytest.raises(BadImage, match=r"not allowed: 254 \(1 of 2400 pixels\); allowed: 0\.\.182 "):
        few.load(0)


def test_files_that_cannot_be_read(root: Path) -> None:
    assert replaced(root, lambda path: path.write_text("no image")).startswith("the semantic map cannot be decoded: ")
    data = opened(root)
    (root / "maps" / "10.png").unlink()
    with pytest.raises(BadImage, match="image id 10: the semantic map does not exist"):
        data.load(0)


def test_missing_maps_are_found_before_anything_is_loaded(root: Path) -> None:
    for name in ("20.png", "40.png"):
        (root / "maps" / name).unlink()
    with pytest.raises(BadSamplesError) as raised:
        opened(root)
    what = "the semantic map does not exist; expected a PNG named like the image ({})"
    assert [str(sample) for sample in raised.value.samples] == [
        f"{root / 'maps' / f'{i}.png'}: image id {i}: {what.format(f'{i}.png')}" for i in (20, 40)
    ]
    assert "--on-bad-sample skip" in str(raised.value)
    data = opened(root, on_bad_sample="skip")
    assert data.image_ids.tolist() == [10, 30]
    assert {a["image_id"] for a in data.ground_truth()["annotations"]} == {10, 30}
    assert [sample.id for sample in data.skipped] == [20, 40]


def test_maps_in_subfolders_go_with_their_images(make_coco: MakeCoco) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["images"] = [{**data["images"][0], "file_name": "b/10.png"}]
        data["annotations"] = [a for a in data["annotations"] if a["image_id"] == 10]

    root = make_coco(edit)
    for folder in ("images/b", "maps/b"):
        (root / folder).mkdir(parents=True)
        Image.fromarray(ids_of(10)).save(root / folder / "10.png")
    assert np.array_equal(opened(root).load(0).semantic.numpy(), ids_of(10))


def test_a_folder_that_is_not_there(make_coco: MakeCoco) -> None:
    root = make_coco()
    with pytest.raises(LayoutError) as raised:
        opened(root)
    assert str(raised.value) == (
        f"semantic_dir folder {root / 'maps'}: does not exist; correct `semantic_dir` of the data set"
    )


def test_maps_that_are_asked_for_and_not_named(make_coco: MakeCoco) -> None:
    with pytest.raises(DataError) as raised:
        CocoConfig(split="train").build(str(make_coco()), semantic=True)
    assert str(raised.value) == (
        "the detector trains on semantic maps, but `data.train.semantic_dir` is not set; name a folder below the data "
        "root with a single-channel PNG for each image, such as COCO-Stuff's stuffthingmaps/train2017 (--set "
        "data.train.semantic_dir=FOLDER), or use a detector without a semantic branch"
    )


@pytest.mark.parametrize("count", [0, 256])
def test_the_number_of_classes(count: int) -> None:
    with pytest.raises(ValueError, match="semantic_classes"):
        CocoConfig(split="train", semantic_classes=count)


# transforms


def sample(ids: Tensor) -> Sample:
    """An image of the map's size whose red channel is the map, with one box and its mask."""
    height, width = ids.shape
    box = torch.tensor([[0.0, 0, width, height]])
    return Sample(
        image=ids.expand(3, -1, -1).clone(),
        boxes=box,
        labels=torch.tensor([0]),
        ignored=torch.tensor([False]),
        masks=torch.ones(1, height, width, dtype=torch.uint8),
        semantic=ids,
    )


def transformed(ids: Tensor, *configs: TransformConfig, key: Key = KEY) -> Tensor:
    done = apply_transforms(sample(ids), [c.build() for c in configs], key).semantic
    assert done is not None
    assert done.dtype == torch.uint8
    return done


def numbered(height: int, width: int) -> Tensor:
    """A map in which neighbours differ."""
    return (torch.arange(height)[:, None] * 7 + torch.arange(width) * 3).remainder(251).to(torch.uint8)


sides = st.integers(1, 60)


@given(sides, sides, sides, sides)
@settings(max_examples=200, deadline=None)
def test_resizing_takes_the_nearest_pixel(height: int, width: int, new_height: int, new_width: int) -> None:
    """A new pixel has the id of the old one that its upper left corner lies in, as instance masks do.

    Where that corner is an old pixel's to the last bit, rounding may make it the pixel before.
    """
    resize = ResizeConfig(scales=((new_width, new_height),), keep_ratio=False)
    for axis, old, new in ((0, height, new_height), (1, width, new_width)):
        shape = (-1, 1) if axis == 0 else (1, -1)
        ids = torch.arange(old, dtype=torch.uint8).reshape(shape).expand(height, width)
        found = transformed(ids, resize).int()
        corner = (torch.arange(new) * old).reshape(shape)
        missing = corner // new - found
        assert ((missing == 0) | ((corner % new == 0) & (missing == 1))).all()


def test_resizing_moves_map_and_masks_alike() -> None:
    ids = numbered(40, 60) % 2
    for size in ((80, 120), (61, 91), (23, 35), (82, 94)):
        transform = ResizeConfig(scales=((size[1], size[0]),), keep_ratio=False).build()
        done = apply_transforms(attrs.evolve(sample(ids), masks=ids[None]), [transform], Key())
        assert done.masks is not None
        assert done.semantic is not None
        assert torch.equal(done.masks[0], done.semantic)


def test_resizing_by_a_whole_factor_repeats_every_id() -> None:
    ids = numbered(5, 9)
    done = transformed(ids, ResizeConfig(scales=((36, 20),)))
    assert torch.equal(done, ids.repeat_interleave(4, 0).repeat_interleave(4, 1))
    assert torch.equal(transformed(done, ResizeConfig(scales=((9, 5),))), ids)


def test_labels_keep_their_centres_when_resized() -> None:
    """Rectangles of an image that is not square: the middle of each has its id at any scale."""
    ids = torch.full((40, 60), 255, dtype=torch.uint8)
    parts = {3: (0, 0, 10, 20), 90: (12, 30, 40, 44), 181: (20, 2, 39, 25)}  # id: top, left, bottom, right
    for number, (top, left, bottom, right) in parts.items():
        ids[top:bottom, left:right] = number
    for size in ((80, 120), (61, 91), (23, 35), (17, 130)):
        done = transformed(ids, ResizeConfig(scales=((size[1], size[0]),), keep_ratio=False))
        assert done.shape == size
        assert set(done.unique().tolist()) == {*parts, 255}
        for number, (top, left, bottom, right) in parts.items():
            y, x = (top + bottom) / 2 * size[0] / 40, (left + right) / 2 * size[1] / 60
            assert done[int(y), int(x)] == number


@given(st.booleans(), st.booleans())
@settings(max_examples=4, deadline=None)
def test_flips_are_the_images(across: bool, down: bool) -> None:
    flip = FlipConfig(probability=float(across), vertical_probability=float(down))
    ids = numbered(6, 11)
    done = apply_transforms(sample(ids), [flip.build()], Key())
    assert done.semantic is not None
    assert torch.equal(done.semantic, done.image[0])
    assert torch.equal(done.semantic, ids.flip([d for d, on in ((0, down), (1, across)) if on]))


def test_colours_leave_the_ids_alone() -> None:
    ids = numbered(6, 11)
    assert torch.equal(transformed(ids, ColorJitterConfig(probability=1.0)), ids)


def test_random_choices_follow_from_the_key() -> None:
    transforms = (ResizeConfig(scales=((90, 50), (120, 80)), mode="range"), FlipConfig(), ColorJitterConfig())
    ids = numbered(40, 60)
    torch.manual_seed(1)
    first = transformed(ids, *transforms, key=Key(1, 2, 3, 4))
    torch.manual_seed(2)
    assert torch.equal(transformed(ids, *transforms, key=Key(1, 2, 3, 4)), first)
    others = [transformed(ids, *transforms, key=Key(1, 2, 3, i)) for i in range(8)]
    assert any(other.shape != first.shape for other in others)


@pytest.mark.parametrize(
    "transform",
    [
        v2.Pad([2, 1, 3, 4]),
        v2.RandomZoomOut(fill={tv_tensors.Image: 7, "others": 0}, side_range=(2.0, 2.0), p=1.0),
        v2.RandomAffine(0, (0.4, 0.4)),
    ],
)
def test_what_a_v2_transform_fills_is_unlabelled(transform: v2.Transform) -> None:
    ids = numbered(6, 11)
    done = apply_transforms(sample(ids), [V2(transform)], Key(index=3))
    assert done.masks is not None
    assert done.semantic is not None
    inside = done.masks[0].bool()
    assert not bool(inside.all())
    assert (done.semantic[~inside] == 255).all()
    assert torch.equal(done.semantic[inside], done.image[0][inside])


def test_a_v2_transform_keeps_unlabelled_pixels_and_sees_ids_plus_one() -> None:
    ids = torch.tensor([[0, 1, 254, 255]], dtype=torch.uint8)
    seen = []

    def look(parts: dict[str, Any]) -> dict[str, Any]:
        assert type(parts["semantic"]) is tv_tensors.Mask
        seen.append(parts["semantic"].tolist())
        return parts

    done = apply_transforms(sample(ids), [V2(look)], Key()).semantic
    assert seen == [[[1, 2, 255, 0]]]
    assert done is not None
    assert torch.equal(done, ids)
    assert type(done) is Tensor


# loading


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_brings_them_with_their_images(root: Path, workers: int) -> None:
    data = opened(root)
    sampler = TrainSampler(sizes=data.sizes, images_per_rank=2, seed=5)
    transforms = [ResizeConfig(scales=((70, 45), (90, 60)), mode="range").build(), FlipConfig().build()]
    images = [image for batch in train_loader(data, transforms, sampler, 0, workers=workers) for image in batch]
    assert {image.info.image_id for image in images} == set(SIZES)
    for image in images:
        ids = image.targets.semantic
        assert ids is not None
        assert ids.shape == image.image.shape[1:] == image.info.size
        position = list(SIZES).index(image.info.image_id)
        again = apply_transforms(data.load(position), transforms, image.info.key).semantic
        assert again is not None
        assert torch.equal(ids, again)


def test_a_bad_map_is_replaced_or_stops_the_epoch(root: Path) -> None:
    Image.new("L", (3, 3)).save(root / "maps" / "20.png")
    sampler = TrainSampler(sizes=opened(root).sizes, images_per_rank=4)
    with pytest.raises(DataError, match=r"20\.png: image id 20: the semantic map is 3x3 pixels(.|\n)*--on-bad-sample"):
        list(train_loader(opened(root), [], sampler, 0))
    data = opened(root, on_bad_sample="skip")
    (batch,) = train_loader(data, [], sampler, 0)
    assert sorted(image.info.image_id for image in batch) == [10, 30, 30, 40]
    assert [bad.id for bad in data.skipped] == [20]


def test_a_map_costs_a_byte_a_pixel_on_its_way(root: Path) -> None:
    data = opened(root)
    held = sum(array.nbytes for array in vars(data).values() if isinstance(array, np.ndarray))
    assert held < 1000  # sizes and ids: no map is kept
    for image in test_loader(data, [ResizeConfig(scales=((400, 300),)).build()]):
        ids = image.targets.semantic
        assert ids is not None
        assert ids.untyped_storage().nbytes() == ids.shape[0] * ids.shape[1]


def test_in_a_batch_padding_is_unlabelled(root: Path) -> None:
    data = opened(root)
    images = list(test_loader(data, [ResizeConfig(scales=((70, 45),)).build()]))
    batch = Preprocess(PreprocessConfig(pad_divisor=32))([i.image for i in images], [i.info for i in images])
    targets = to_targets(batch, images)
    maps = semantic_batch(targets, batch.padded_size)
    assert maps.shape == (4, *batch.padded_size)
    assert maps.dtype == torch.int64
    for row, target, info in zip(maps, targets, batch.infos, strict=True):
        height, width = info.size
        assert target.semantic is not None
        assert target.semantic.shape == info.size  # unpadded
        assert torch.equal(row[:height, :width], target.semantic)
        assert (row[height:] == 255).all()
        assert (row[:, width:] == 255).all()


# the bundled sample


def test_the_samples_maps_are_made_of_its_masks() -> None:
    data = SampleConfig(split="train").build(semantic=True)
    masked = SampleConfig(split="train").build(masks=True, semantic=True)
    assert (data.semantic_classes, data.has_masks, masked.has_masks) == (2, False, True)
    shares = []
    for index in range(len(data)):
        found, other = data.load(index), masked.load(index)
        assert found.masks is None
        assert found.semantic is not None
        masks = bitmaps_of(other.masks)
        assert other.semantic is not None
        assert torch.equal(found.semantic, other.semantic)
        assert torch.equal(found.semantic == 0, masks.any(0))  # nucleus, label 0
        assert torch.equal(found.semantic == 1, ~masks.bool().any(0))  # all else
        shares.append(float((found.semantic == 0).float().mean()))
    assert 0 < min(shares) < max(shares) < 0.6
    assert SampleConfig(split="train").build().load(0).semantic is None


def test_a_map_of_masks() -> None:
    masks = torch.zeros(3, 3, 4, dtype=torch.uint8)
    masks[0, 0, :3], masks[1, 0, 2:], masks[2, 2] = 1, 1, 1
    found = map_of_masks(masks, torch.tensor([4, 2, 1]), torch.tensor([False, False, True]), stuff=5)
    assert found.dtype == torch.uint8
    assert found.tolist() == [[4, 4, 2, 2], [5, 5, 5, 5], [255, 255, 255, 255]]
    none = map_of_masks(masks[:0], torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool), stuff=5)
    assert none.tolist() == [[5] * 4] * 3


# what the detector and the data set say of each other


@stub_config
class Tower(BackboneConfig):
    type: ClassVar[str] = "tower"

    def feature_spec(self) -> FeatureSpec:
        return FeatureSpec(channels=(8,), strides=(8,))


@stub_config
class Stuff(RoIHeadConfig):
    type: ClassVar[str] = "stuff"
    classes: int = 183

    def semantic_classes(self) -> int:
        return self.classes


def recipe(train: DatasetConfig, root: str = "", classes: int = 183) -> Recipe:
    """A detector that trains on semantic maps and takes proposals from the data."""
    proposals = attrs.evolve(train, proposals="x.safetensors") if hasattr(train, "proposals") else train
    return Recipe(
        name="my",
        detector=DetectorConfig(backbone=Tower(), roi_head=Stuff(classes=classes)),
        data=DataConfig(train=proposals, val=CocoConfig(split="val", semantic_dir="maps"), root=root),
        evaluation=EvaluationConfig(evaluators=(CocoEvaluatorConfig(),)),
    )


@pytest.fixture
def no_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("dataset_settings", "data_config"):
        monkeypatch.setattr(f"det_core.data.{module}.proposals_file", lambda root, name: None)


@pytest.mark.usefixtures("no_proposals")
def test_training_opens_them_where_the_detector_needs_them(root: Path) -> None:
    with_maps = recipe(CocoConfig(split="train", semantic_dir="maps"), str(root))
    assert with_maps.detector.needs_semantic()
    assert with_maps.open_train().load(0).semantic is not None
    assert recipe(SampleConfig(split="train")).open_train().semantic_classes == 2
    without = recipe(CocoConfig(split="train", semantic_dir="maps"), str(root), classes=0)
    assert not without.detector.needs_semantic()
    assert without.open_train().load(0).semantic is None
    with pytest.raises(DataError, match=r"`data\.train\.semantic_dir` is not set"):
        recipe(CocoConfig(split="train"), str(root)).open_train()


@pytest.mark.usefixtures("no_proposals")
def test_tests_need_none(make_coco: MakeCoco) -> None:
    root = make_coco(split="val")
    given = recipe(SampleConfig(split="train"), str(root))
    data = attrs.evolve(given.data, val=attrs.evolve(given.data.val, proposals="x.safetensors"))
    opened = attrs.evolve(given, data=data).open_val()
    assert opened.semantic_classes == 0
    assert opened.load(0).semantic is None


@pytest.mark.usefixtures("no_proposals")
def test_the_data_command_looks_at_those_that_are_trained_on(root: Path, make_coco: MakeCoco) -> None:
    from det_core.cli.data import _open

    make_coco(split="val")
    given = recipe(CocoConfig(split="train", semantic_dir="maps"), str(root))
    assert _open(given, "train", masks=False).semantic_classes == 182
    assert _open(given, "val", masks=False).semantic_classes == 0


@pytest.mark.usefixtures("no_proposals")
def test_more_ids_than_the_head_tells_apart(root: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        recipe(CocoConfig(split="train", semantic_dir="maps"), str(root), classes=20).open_train()
    assert str(raised.value) == (
        f"my: 1 problem\n  data.train: the semantic maps of {root / 'instances_train.json'} may have ids 0..181, but "
        "roi_head 'stuff' has 20 semantic classes; lower `semantic_classes` of the data set if its maps have fewer "
        "ids, or raise the head's"
    )


def test_a_data_set_that_has_none() -> None:
    @stub_config
    class Plain(DatasetConfig):
        type: ClassVar[str] = "plain"

        def build(self, root: str, *, masks: bool = False, semantic: bool = False, on_bad_sample: str = "error") -> Any:
            return SampleConfig(split="train").build()

    with pytest.raises(ConfigError) as raised:
        recipe(Plain()).open_train()
    assert str(raised.value) == (
        "my: 1 problem\n  data.train: roi_head 'stuff' trains on semantic maps, but sample (train) ('plain') has "
        "none; use a data set that has, or a head that needs none"
    )


def test_the_report_tells_of_them(root: Path) -> None:
    Image.new("L", (3, 3)).save(root / "maps" / "20.png")
    report = data_report(opened(root, on_bad_sample="skip", semantic_classes=182), read_images=True)
    assert report.semantic_classes == 182
    assert "a semantic map for every image, of ids 0..181 and 255 (unlabelled)" in report.render()
    assert [bad.id for bad in report.bad] == [20]
    plain = data_report(CocoConfig(split="train").build(str(root)))
    assert plain.semantic_classes == 0
    assert "semantic" not in plain.render()
