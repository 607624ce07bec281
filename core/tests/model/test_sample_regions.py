"""Which regions train: assignment before the objects' own boxes join, and who is who among what is drawn."""

from __future__ import annotations

import torch

from det_core.boxes.box_config import MaxIoUAssignerConfig, RandomSamplerConfig
from det_core.model.sample_regions import SampledRegions, sample_regions
from det_core.structures import Key, Targets

A, B = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 20.0]
BETWEEN = [0.0, 0.0, 10.0, 12.0]  # overlaps A by .83 and B by .6
FAR = [50.0, 20.0, 60.0, 30.0]
PLAIN, BROAD = MaxIoUAssignerConfig(), MaxIoUAssignerConfig(low_quality=True)
MANY = RandomSamplerConfig(count=512, positive_fraction=0.25)


def target(*boxes: list[float], labels: list[int]) -> Targets:
    return Targets(boxes=torch.tensor(boxes).view(-1, 4), labels=torch.tensor(labels).long())


def sample(
    proposals: list[list[float]],
    objects: Targets,
    assigner: MaxIoUAssignerConfig = PLAIN,
    sampler: RandomSamplerConfig = MANY,
    *,
    key: int = 1,
    consumer: str = "roi",
    add_objects: bool = True,
) -> SampledRegions:
    return sample_regions(
        torch.tensor(proposals).view(-1, 4),
        objects,
        assigner=assigner.build(),
        sampler=sampler.build(),
        num_classes=2,
        key=Key(index=key),
        consumer=consumer,
        add_objects=add_objects,
    )


def test_proposals_are_assigned_among_themselves_before_the_objects_own_boxes_join():
    """So an object's own box does not take the low-quality match of the proposal that overlaps it most."""
    objects = target(A, B, labels=[0, 1])
    found = sample([BETWEEN, FAR], objects, BROAD)
    assert found.boxes.tolist() == [A, B, BETWEEN, FAR]
    assert found.objects.tolist() == [0, 1, 1]
    assert found.labels.tolist() == [0, 1, 1, 2]
    assert found.positive.tolist() == [A, B, BETWEEN]
    assert found.positive_labels.tolist() == [0, 1, 1]
    assert sample([BETWEEN, FAR], objects).objects.tolist() == [0, 1, 0]


def test_each_own_box_stands_for_its_object_even_where_two_are_alike():
    found = sample([FAR], target(A, A, labels=[1, 0]))
    assert found.objects.tolist() == [0, 1]
    assert found.labels.tolist() == [1, 0, 2]


def test_own_boxes_are_told_from_proposals_that_equal_them():
    found = sample([A, FAR], target(A, labels=[1]))
    assert found.from_objects.tolist() == [True, False]
    assert found.proposed.tolist() == [False, True, True]


def test_own_boxes_can_stay_out():
    found = sample([A, FAR], target(A, labels=[1]), add_objects=False)
    assert found.boxes.tolist() == [A, FAR]
    assert found.from_objects.tolist() == [False]
    assert found.proposed.tolist() == [True, True]


def test_without_objects_all_is_background_and_nothing_stays_nothing():
    found = sample([A, FAR], target(labels=[]))
    assert (found.labels.tolist(), found.objects.tolist(), found.from_objects.tolist()) == ([2, 2], [], [])
    nothing = sample([], target(labels=[]))
    assert nothing.boxes.shape == (0, 4)
    assert nothing.proposed.shape == (0,)


def test_proposals_take_the_precision_of_the_objects():
    objects = Targets(boxes=torch.tensor([A], dtype=torch.float64), labels=torch.tensor([1]))
    assert sample([FAR], objects).boxes.dtype == torch.float64


def test_the_choice_comes_from_the_key_and_the_consumer():
    proposals = [[float(i), 0.0, 10.0 + i, 10.0] for i in range(3)] + [[50.0, 20.0, 60.0 + i, 30.0] for i in range(9)]
    few = RandomSamplerConfig(count=4, positive_fraction=0.5)
    objects = target(A, labels=[1])

    def drawn(key: int, consumer: str) -> list[list[float]]:
        found = sample(proposals, objects, sampler=few, key=key, consumer=consumer)
        assert (len(found.from_objects), len(found.boxes)) == (2, 4)
        assert all(box == A for box in found.positive[found.from_objects].tolist())
        return found.boxes.tolist()

    assert drawn(1, "roi") == drawn(1, "roi")
    assert len({str(drawn(key, "roi")) for key in range(8)}) > 1
    assert len({str(drawn(1, consumer)) for consumer in "abcdefgh"}) > 1
