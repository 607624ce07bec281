"""Sampling: how many of which kind, and where the randomness comes from."""

from __future__ import annotations

import pytest
import torch

from det_core.boxes.box_config import AllSamplerConfig, RandomSamplerConfig
from det_core.contracts import BACKGROUND, IGNORED, Assignment, Sampled, Sampler
from det_core.structures import Key


def assignment(positive: int, negative: int, ignored: int = 0) -> Assignment:
    """Interleaved, so that an index says nothing of its kind; the positives stand for objects 100, 101, ..."""
    kinds = torch.tensor([*range(100, 100 + positive), *[BACKGROUND] * negative, *[IGNORED] * ignored])
    return Assignment(kinds[torch.randperm(len(kinds), generator=torch.Generator().manual_seed(5))])


KEY = Key()


def sample(found: Assignment, key: Key = KEY, consumer: str = "test", **settings: float) -> Sampled:
    return RandomSamplerConfig(**settings).build()(found, key, consumer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("positive", "negative", "count", "fraction", "expected"),
    [
        (300, 1000, 256, 0.5, (128, 128)),
        (10, 1000, 256, 0.5, (10, 246)),  # fewer positives leave room for negatives
        (300, 10, 256, 0.5, (128, 10)),  # fewer negatives leave no room for positives
        (0, 1000, 256, 0.5, (0, 256)),
        (3, 0, 256, 0.5, (3, 0)),
        (0, 0, 256, 0.5, (0, 0)),
        (300, 1000, 512, 0.25, (128, 384)),
        (300, 1000, 10, 0.25, (2, 8)),  # int(2.5)
        (5, 5, 4, 0.0, (0, 4)),
        (5, 5, 4, 1.0, (4, 0)),
        (5, 5, 1, 0.5, (0, 1)),
    ],
)
def test_counts(positive, negative, count, fraction, expected):
    found = sample(assignment(positive, negative, 20), count=count, positive_fraction=fraction)
    assert (len(found.positive), len(found.negative)) == expected


def test_the_chosen_are_of_their_kind_each_once_and_know_their_object():
    given = assignment(40, 60, 30)
    found = sample(given, count=50, positive_fraction=0.5)
    assert set(found.positive.tolist()) <= set(given.positive().tolist())
    assert set(found.negative.tolist()) <= set(given.negative().tolist())
    assert len(set(found.positive.tolist())) == len(set(found.negative.tolist())) == 25
    assert torch.equal(found.objects, given.objects[found.positive])
    assert (found.objects >= 100).all()


def test_the_sampler_of_all_takes_what_is_not_ignored():
    given = assignment(40, 60, 30)
    found = AllSamplerConfig().build()(given, KEY, "test")
    assert torch.equal(found.positive, given.positive())
    assert torch.equal(found.negative, given.negative())
    assert torch.equal(found.objects, given.objects[found.positive])


def test_where_all_are_taken_they_stay_in_order():
    found = sample(assignment(4, 6), count=50)
    assert found.positive.tolist() == sorted(found.positive.tolist())
    assert found.negative.tolist() == sorted(found.negative.tolist())


def test_the_same_key_and_consumer_choose_the_same():
    given, key = assignment(40, 60), Key(seed=1, epoch=2, index=3)
    first, second = (sample(given, key, count=20) for _ in range(2))
    assert torch.equal(first.positive, second.positive)
    assert torch.equal(first.negative, second.negative)


@pytest.mark.parametrize(
    ("key", "consumer"),
    [
        (Key(), "other"),
        (Key(seed=1), "test"),
        (Key(epoch=1), "test"),
        (Key(repeat=1), "test"),
        (Key(index=1), "test"),
    ],
)
def test_another_key_or_consumer_chooses_otherwise(key, consumer):
    given = assignment(400, 600)
    first, second = sample(given, count=100), sample(given, key, consumer, count=100)
    assert set(first.positive.tolist()) != set(second.positive.tolist())
    assert set(first.negative.tolist()) != set(second.negative.tolist())


def test_the_global_random_state_is_neither_used_nor_moved():
    given = assignment(40, 60)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sample(given, count=20)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(sample(given, count=20).positive, first.positive)


def test_every_candidate_is_drawn_about_as_often():
    given = Assignment(torch.full((20,), BACKGROUND))
    drawn = torch.zeros(20)
    for index in range(400):
        drawn[sample(given, Key(index=index), count=5).negative] += 1
    assert drawn.sum() == 2000
    assert ((drawn > 60) & (drawn < 140)).all()  # 100 each, with a deviation of 8.7


class FirstPositive(Sampler):
    """A sampler that knows of one image at a time."""

    def __call__(self, assignment: Assignment, key: Key, consumer: str) -> Sampled:
        positive = assignment.positive()[:1]
        return Sampled(positive, assignment.negative(), assignment.objects[positive])


@pytest.mark.parametrize("sampler", [RandomSamplerConfig(count=20).build(), FirstPositive()])
def test_the_samples_of_several_images_are_those_of_each(sampler: Sampler):
    given = [assignment(40, 60, 3), assignment(0, 5), assignment(2, 0), assignment(0, 0)]
    keys = [Key(index=index) for index in range(4)]
    for one, key, together in zip(given, keys, sampler.sample_images(given, keys, "test"), strict=True):
        alone = sampler(one, key, "test")
        for name in ("positive", "negative", "objects"):
            assert getattr(together, name).tolist() == getattr(alone, name).tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, r"count\S*: found .+, expected .*at least 1"),
        ({"positive_fraction": 1.1}, r"positive_fraction\S*: found .+, expected .*at most 1"),
        ({"positive_fraction": -0.1}, r"positive_fraction\S*: found .+, expected .*at least 0"),
    ],
)
def test_settings_that_choose_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RandomSamplerConfig(**settings)
