"""Class-balanced sampling: factors by LVIS's formula, and epochs that are a function of seed and epoch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from det_core.contracts import DetectionDataset
from det_core.data.data_config import CocoConfig, SampleConfig
from det_core.data.epoch_order import TrainSampler
from det_core.data.repeat_factors import drawn_counts, factors_of, most_items, repeat_factors
from det_core.load import load_recipe
from det_core.structures import Key

IMAGES = st.lists(st.sets(st.integers(0, 5), max_size=4), min_size=1, max_size=40)


@given(IMAGES, st.floats(1e-4, 1))
def test_factors_equal_the_formula(classes: list[set[int]], threshold: float) -> None:
    """r(I) = max over c in I of max(1, sqrt(t / f(c))), f(c) the share of images with c."""
    found = repeat_factors(classes, threshold)
    for own, factor in zip(classes, found, strict=True):
        share = {c: sum(c in other for other in classes) / len(classes) for c in own}
        assert factor == pytest.approx(max([1.0, *(math.sqrt(threshold / f) for f in share.values())]), rel=1e-12)


def test_factors_by_hand() -> None:
    """Class 0 is in all of 16 images, class 1 in one: sqrt(1/4 / (1/16)) = 2."""
    assert repeat_factors([{0, 1}, *([{0}] * 14), [0, 0]], 0.25).tolist() == [2.0, *([1.0] * 15)]
    assert repeat_factors([set(), {3}], 1.0).tolist() == [1.0, math.sqrt(2)]


def test_factors_of_a_data_set() -> None:
    """The sample has one class, in every image; crowd regions do not count."""
    data = load_recipe("faster-rcnn/r18-fpn-demo").open_train()
    assert factors_of(data, 1.0).tolist() == [1.0] * len(data)


@settings(max_examples=50)
@given(st.lists(st.floats(1, 9), min_size=1, max_size=50), st.integers(0, 3))
def test_each_count_is_a_rounded_factor(factors: list[float], epoch: int) -> None:
    given = np.array(factors)
    counts = drawn_counts(given, Key(seed=1, epoch=epoch))
    assert ((counts == np.floor(given)) | (counts == np.ceil(given))).all()
    assert most_items(given) - 1 <= counts.sum() <= most_items(given)


def test_the_mean_over_epochs_is_the_factor() -> None:
    factors = np.random.default_rng(0).uniform(1, 4, 30)
    mean = np.mean([drawn_counts(factors, Key(seed=3, epoch=epoch)) for epoch in range(2000)], axis=0)
    assert mean == pytest.approx(factors, abs=0.06)  # five standard deviations
    assert drawn_counts(factors, Key(seed=3, epoch=1)).tolist() == drawn_counts(factors, Key(seed=3, epoch=1)).tolist()
    assert drawn_counts(factors, Key(seed=4, epoch=1)).tolist() != drawn_counts(factors, Key(seed=3, epoch=1)).tolist()


SIZES = np.array([(10, 20), (20, 10), (10, 10), (30, 40), (40, 30)] * 3)
FACTORS = np.linspace(1, 3.7, len(SIZES))


@pytest.mark.parametrize("repeat", [1, 3])
def test_epochs_have_all_repeats_once_and_equal_lengths(repeat: int) -> None:
    sampler = TrainSampler(sizes=SIZES, images_per_rank=2, factors=FACTORS, repeat=repeat, group_by_aspect=False)
    assert sampler.images_per_epoch == math.ceil(FACTORS.sum() * repeat)
    for epoch in range(5):
        batches = sampler.batches(epoch)
        assert len(batches) == sampler.steps_per_epoch
        keys = Counter((key.repeat, key.index) for batch in batches for key in batch)
        found = np.bincount([index for _, index in keys], minlength=len(SIZES))
        assert found.tolist() == drawn_counts(FACTORS * repeat, Key(epoch=epoch)).tolist()
        assert sum(keys.values()) - len(keys) <= 2  # only fillers of the last batch occur twice


def test_epochs_do_not_depend_on_the_number_of_ranks() -> None:
    one = TrainSampler(sizes=SIZES, images_per_rank=4, factors=FACTORS, seed=5)
    two = [TrainSampler(sizes=SIZES, images_per_rank=2, factors=FACTORS, seed=5, rank=r, world=2) for r in range(2)]
    for epoch in range(3):
        parts = [sampler.batches(epoch) for sampler in two]
        assert [a + b for a, b in zip(*parts, strict=True)] == list(one.batches(epoch))
    assert list(one.batches(2)) == list(
        TrainSampler(sizes=SIZES, images_per_rank=4, factors=FACTORS, seed=5).batches(2)
    )


def test_an_epoch_that_is_one_image_shorter_has_as_many_steps() -> None:
    """The sum 4.5 is 4 or 5: with batches of 2, both are 3 steps; with batches of 4, 4 images alone were 1 step."""
    factors = np.array([1.5, 1.0, 1.0, 1.0])
    for size in (2, 4):
        sampler = TrainSampler(sizes=SIZES[:4], images_per_rank=size, factors=factors)
        assert sampler.steps_per_epoch == -(-5 // size)
        lengths = {len(sampler.batches(epoch)) for epoch in range(20)}
        assert lengths == {sampler.steps_per_epoch}
        assert {int(drawn_counts(factors, Key(epoch=epoch)).sum()) for epoch in range(20)} == {4, 5}


def test_factors_of_one_are_the_plain_epoch_in_another_order() -> None:
    plain = TrainSampler(sizes=SIZES, images_per_rank=3)
    ones = TrainSampler(sizes=SIZES, images_per_rank=3, factors=np.ones(len(SIZES)))
    assert ones.steps_per_epoch == plain.steps_per_epoch
    assert sorted(k.index for b in ones.batches(0) for k in b) == sorted(k.index for b in plain.batches(0) for k in b)


def test_labels_of_objects_are_those_of_the_ground_truth(make_coco: Callable[..., Path]) -> None:
    """Both from arrays and, as for the data sets of plugins, from records; the file has a crowd region."""
    for data in (CocoConfig(split="train").build(str(make_coco())), SampleConfig(split="val").build()):
        ours, plain = data.object_labels(), DetectionDataset.object_labels(data)
        assert [part.tolist() for part in ours] == [part.tolist() for part in plain]
        crowd = sum(record["iscrowd"] for record in data.ground_truth()["annotations"])
        assert len(ours[0]) == len(data.ground_truth()["annotations"]) - crowd > 0
