"""Which images a step sees, and that nothing but seed, epoch and step decides it."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from det_core.compressed_masks import bitmaps_of
from det_core.contracts import DetectionDataset, Sample
from det_core.data.coco_dataset import CocoDataset
from det_core.data.data_config import FlipConfig, ResizeConfig, SampleConfig
from det_core.data.epoch_order import EpochBatches, TrainSampler
from det_core.data.loader import LoadedImage, test_loader, train_loader
from det_core.errors import DataError
from det_core.structures import Key

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
MakeCoco = Callable[..., Path]
TRANSFORMS = [ResizeConfig(scales=((80, 40), (80, 56)), mode="range").build(), FlipConfig().build()]


def sizes(wide: int, tall: int) -> np.ndarray:
    return np.array([(40, 60)] * wide + [(60, 40)] * tall, np.int64).reshape(-1, 2)


def sampler(dataset: DetectionDataset, **more: Any) -> TrainSampler:
    return TrainSampler(**{"sizes": dataset.sizes, "images_per_rank": 2, "seed": 5, **more})


def same(a: LoadedImage, b: LoadedImage) -> bool:
    ours, theirs = bitmaps_of(a.targets.masks), bitmaps_of(b.targets.masks)
    masks = ours is theirs is None or (ours is not None and theirs is not None and torch.equal(ours, theirs))
    return (
        torch.equal(a.image, b.image)
        and torch.equal(a.targets.boxes, b.targets.boxes)
        and a.info == b.info
        and torch.equal(a.targets.labels, b.targets.labels)
        and masks
    )


def all_same(a: Sequence[Sequence[LoadedImage]], b: Sequence[Sequence[LoadedImage]]) -> bool:
    return all(len(x) == len(y) and all(map(same, x, y)) for x, y in zip(a, b, strict=True))


@given(
    wide=st.integers(0, 30),
    tall=st.integers(0, 30),
    per_rank=st.integers(1, 5),
    world=st.integers(1, 4),
    repeat=st.integers(1, 3),
    group=st.booleans(),
    epoch=st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_batches(wide: int, tall: int, per_rank: int, world: int, repeat: int, group: bool, epoch: int) -> None:
    if wide + tall == 0:
        return
    ranks = [
        TrainSampler(
            sizes=sizes(wide, tall),
            images_per_rank=per_rank,
            seed=1,
            rank=r,
            world=world,
            repeat=repeat,
            group_by_aspect=group,
        )
        for r in range(world)
    ]
    whole = list(ranks[0].global_batches(epoch))
    assert len(whole) == ranks[0].steps_per_epoch
    assert all(len(batch) == per_rank * world for batch in whole)
    parts = [r.batches(epoch) for r in ranks]
    assert [[key for rank in step for key in rank] for step in zip(*parts, strict=True)] == whole
    counts = Counter((key.repeat, key.index) for batch in whole for key in batch)
    assert set(counts) == {(r, i) for r in range(repeat) for i in range(wide + tall)}
    extra = len(whole) * per_rank * world - repeat * (wide + tall)
    assert sum(counts.values()) - len(counts) == extra < per_rank * world
    assert all(key.seed == 1 and key.epoch == epoch for batch in whole for key in batch)
    if group:
        mixed = [batch for batch in whole if len({key.index < wide for key in batch}) > 1]
        size = per_rank * world
        left = wide * repeat % size + tall * repeat % size
        assert len(mixed) <= -(-left // size)


def test_one_rank_with_twice_the_images_sees_what_two_see() -> None:
    one = TrainSampler(sizes=sizes(13, 8), images_per_rank=4, seed=3).batches(2)
    two = [TrainSampler(sizes=sizes(13, 8), images_per_rank=2, seed=3, rank=r, world=2).batches(2) for r in (0, 1)]
    assert list(one) == [a + b for a, b in zip(*two, strict=True)]


def test_order_changes_with_seed_and_epoch_only() -> None:
    make = [TrainSampler(sizes=sizes(20, 20), images_per_rank=4, seed=s) for s in (0, 0, 1)]
    assert list(make[0].batches(0)) == list(make[1].batches(0))
    indices = [[k.index for b in s.batches(e) for k in b] for s, e in ((make[0], 0), (make[0], 1), (make[2], 0))]
    assert indices[0] != indices[1]
    assert indices[0] != indices[2]


def test_wide_batches_are_spread_over_the_epoch() -> None:
    batches = TrainSampler(sizes=sizes(40, 40), images_per_rank=4, seed=0).batches(0)
    wide = [batch[0].index < 40 for batch in batches]
    assert wide != sorted(wide)
    assert wide != sorted(wide, reverse=True)


def test_the_fill_repeats_no_image_within_a_batch() -> None:
    for epoch in range(10):
        for batch in TrainSampler(sizes=sizes(9, 0), images_per_rank=4, seed=0).batches(epoch):
            assert len({key.index for key in batch}) == 4


def test_sampler_errors() -> None:
    with pytest.raises(ValueError, match="rank 2 of 2 processes"):
        TrainSampler(sizes=sizes(3, 3), images_per_rank=1, rank=2, world=2)
    with pytest.raises(DataError, match="no images to train on"):
        TrainSampler(sizes=sizes(0, 0), images_per_rank=1)


def test_content_does_not_depend_on_workers(make_coco: MakeCoco) -> None:
    root = make_coco()
    data = CocoDataset(root / "instances_train.json", root / "images", masks=True)
    plan = sampler(data, repeat=3)
    state = torch.random.get_rng_state()
    alone = list(train_loader(data, TRANSFORMS, plan, epoch=1))
    three = list(train_loader(data, TRANSFORMS, plan, epoch=1, workers=3))
    assert len(alone) == plan.steps_per_epoch == 6
    assert all_same(alone, three)
    assert torch.equal(torch.random.get_rng_state(), state)
    other = list(train_loader(data, TRANSFORMS, plan, epoch=2))
    assert not all_same(alone, other)


def test_ranks_together_are_one_process(make_coco: MakeCoco) -> None:
    root = make_coco()
    data = CocoDataset(root / "instances_train.json", root / "images", masks=True)
    one = list(train_loader(data, TRANSFORMS, sampler(data, images_per_rank=2), epoch=0))
    two = [
        list(train_loader(data, TRANSFORMS, sampler(data, images_per_rank=1, rank=r, world=2), epoch=0)) for r in (0, 1)
    ]
    assert all_same(one, [a + b for a, b in zip(*two, strict=True)])


class Counting(DetectionDataset):
    """Hands on another data set's images and remembers which were loaded."""

    def __init__(self, inner: DetectionDataset) -> None:
        self.inner, self.loaded = inner, []  # type: ignore[var-annotated]
        self.name, self.classes, self.sizes, self.image_ids = inner.name, inner.classes, inner.sizes, inner.image_ids
        self.skipped = []

    def file(self, index: int) -> str:
        return self.inner.file(index)

    def load(self, index: int) -> Sample:
        self.loaded.append(index)
        return self.inner.load(index)

    def ground_truth(self) -> dict[str, Any]:
        return self.inner.ground_truth()


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_the_middle_of_an_epoch(make_coco: MakeCoco, workers: int) -> None:
    root = make_coco()
    data = Counting(CocoDataset(root / "instances_train.json", root / "images"))
    plan = sampler(data, repeat=3)
    whole = list(train_loader(data, TRANSFORMS, plan, epoch=0))
    data.loaded.clear()
    loader = train_loader(data, TRANSFORMS, plan, epoch=0, start_step=4, workers=workers)
    assert len(loader) == 2
    assert all_same(list(loader), whole[4:])
    if workers == 0:
        assert data.loaded == [key.index for batch in plan.batches(0)[4:] for key in batch]


def test_info(make_coco: MakeCoco) -> None:
    root = make_coco()
    data = CocoDataset(root / "instances_train.json", root / "images")
    image = next(iter(test_loader(data, [ResizeConfig(scales=((91, 61),)).build()])))
    assert image.info.size == (61, 91) == tuple(image.image.shape[1:])
    assert image.info.original_size == (40, 60)
    assert image.info.scale == (61 / 40, 91 / 60)
    assert image.info.image_id == 10
    assert image.info.file.endswith("10.png")
    assert image.info.key == Key(index=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_test_loader_is_in_order_and_strided(make_coco: MakeCoco, workers: int) -> None:
    root = make_coco()
    data = CocoDataset(root / "instances_train.json", root / "images")
    assert [i.info.image_id for i in test_loader(data, [], workers)] == [10, 20, 30, 40]
    halves = [[i.info.image_id for i in test_loader(data, [], workers, rank, 2)] for rank in (0, 1)]
    assert halves == [[10, 30], [20, 40]]
    assert [len(test_loader(data, [], 0, rank, 3)) for rank in range(3)] == [2, 1, 1]


def truncated(root: Path, *names: str) -> None:
    for name in names:
        path = root / "images" / name
        path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_image_stops_with_its_file(make_coco: MakeCoco, workers: int) -> None:
    root = make_coco()
    truncated(root, "20.png")
    data = CocoDataset(root / "instances_train.json", root / "images")
    for loader in (train_loader(data, [], sampler(data), 0, 0, workers), test_loader(data, [], workers)):
        with pytest.raises(DataError, match=r"20\.png: image id 20: the image cannot be decoded") as raised:
            list(loader)
        assert "Traceback" not in str(raised.value)
        assert "--on-bad-sample skip" in str(raised.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_image_is_replaced_and_reported_once(
    make_coco: MakeCoco, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_coco()
    truncated(root, "20.png")
    data = CocoDataset(root / "instances_train.json", root / "images", on_bad_sample="skip")
    plan = sampler(data, repeat=3)
    with caplog.at_level(logging.WARNING, "det_core"):
        loader = train_loader(data, TRANSFORMS, plan, 0, 0, workers)
        steps = list(loader)
    assert all(len(step) == 2 for step in steps)
    for step, keys in zip(steps, plan.batches(0), strict=True):
        for image, key in zip(step, keys, strict=True):
            assert image.info.key == key
            assert image.info.image_id == (30 if key.index == 1 else int(data.image_ids[key.index]))
    assert [bad.id for bad in loader.skipped] == [20]
    assert data.skipped == loader.skipped
    assert len([r for r in caplog.records if "20.png" in r.getMessage()]) == 1
    tested = test_loader(data, [], workers)
    assert [i.info.image_id for i in tested] == [10, 30, 40]
    assert [bad.id for bad in tested.skipped] == [20]
    assert len(data.skipped) == 1


def test_no_image_can_be_loaded(make_coco: MakeCoco) -> None:
    root = make_coco()
    truncated(root, "10.png", "20.png", "30.png", "40.png")
    data = CocoDataset(root / "instances_train.json", root / "images", on_bad_sample="skip")
    with pytest.raises(DataError, match=r"no image can be loaded; the first error: .*\.png"):
        list(train_loader(data, [], sampler(data), 0))


def test_the_sample_loads_in_workers() -> None:
    data = SampleConfig(split="val").build("", masks=True)
    images = list(test_loader(data, [ResizeConfig(scales=((128, 128),)).build()], workers=1))
    assert len(images) == 7
    for image in images:
        assert image.image.shape == (3, 128, 128)
        assert image.targets.masks is not None
        assert image.targets.masks.shape == (len(image.targets), 128, 128)


@pytest.mark.parametrize("workers", [0, 2])
def test_one_stream_of_several_epochs_is_the_epochs_one_after_the_other(make_coco: MakeCoco, workers: int) -> None:
    """The processes stay the same, and load the next epoch before the one before ends."""
    root = make_coco()
    data = CocoDataset(root / "instances_train.json", root / "images")
    plan = sampler(data, repeat=2)
    apart = [batch for epoch in (1, 2, 3) for batch in train_loader(data, TRANSFORMS, plan, epoch)]
    stream = iter(train_loader(data, TRANSFORMS, plan, 1, workers=workers, epochs=3))
    first = next(stream)
    before = {child.pid for child in multiprocessing.active_children()}
    rest = list(itertools.islice(stream, len(apart) - 2))
    assert {child.pid for child in multiprocessing.active_children()} == before
    assert len(before) == workers
    assert all_same([first, *rest, *stream], apart)


def test_a_stream_begins_within_its_first_epoch_only(make_coco: MakeCoco) -> None:
    root = make_coco()
    data = CocoDataset(root / "instances_train.json", root / "images")
    plan = sampler(data, repeat=2)
    loader = train_loader(data, [], plan, 0, start_step=3, epochs=2)
    keys = [[image.info.key for image in batch] for batch in loader]
    assert keys == [*plan.batches(0)[3:], *plan.batches(1)]
    assert len(keys) == len(loader)


def test_the_order_of_a_large_epoch_is_held_in_arrays() -> None:
    count = 1_000_000
    shapes = np.zeros((count, 2), np.int64)
    shapes[::3, 0] = 1
    batches = TrainSampler(sizes=shapes, images_per_rank=16).batches(0)
    assert isinstance(batches, EpochBatches)
    assert batches.items.nbytes + batches.shuffled.nbytes < 5 * count
    assert np.array_equal(np.sort(batches.items.reshape(-1)), np.arange(count))
