"""The assigner, case by case: boxes are 10 wide strips, so that every IoU can be read off."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from hypothesis import given, strategies as st
from torch import Tensor

from det_core.boxes.assigners import MaxIoUAssigner
from det_core.boxes.box_config import MaxIoUAssignerConfig
from det_core.boxes.overlaps import box_iou
from det_core.contracts import BACKGROUND, IGNORED, Assignment

STRICT = MaxIoUAssignerConfig(positive=0.7, negative=0.3)
RPN = MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.3)
NO_OBJECTS = torch.zeros(0, 4)


def strips(*widths: float, x: float = 0.0, y: float = 0.0) -> Tensor:
    """Boxes of these widths and height 1 from (x, y): two at one place have the quotient of their widths as IoU."""
    return torch.tensor([[x, y, x + w, y + 1.0] for w in widths])


def assigned(config: MaxIoUAssignerConfig, boxes: Tensor, objects: Tensor) -> list[int]:
    return config.build()(boxes, objects).objects.tolist()


def by_definition(config: MaxIoUAssignerConfig, boxes: Tensor, objects: Tensor) -> list[int]:
    """The rule written out over the whole matrix, one box and one object at a time."""
    iou = box_iou(boxes, objects)
    result = []
    for row in iou:
        best = row.max().item() if len(row) else 0.0
        result.append(BACKGROUND if best < config.negative else IGNORED)
        if len(row) and best >= config.positive:
            result[-1] = row.tolist().index(best)
    for number in range(len(objects)):
        column = iou[:, number].tolist()
        if config.low_quality and column and max(column) >= config.min_positive:
            takers = [i for i, value in enumerate(column) if value == max(column)]
            for i in takers if config.all_ties else takers[:1]:
                nearest = iou[i].tolist().index(iou[i].max().item())
                result[i] = number if config.low_quality_object == "its" else nearest
    return result


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Candidates and objects on a coarse grid, so that overlaps tie often."""
    side = st.integers(1, 4)
    box = st.tuples(side, side, side, side).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
    boxes, objects = draw(st.lists(box, max_size=12)), draw(st.lists(box, max_size=5))
    return torch.tensor(boxes).float().view(-1, 4), torch.tensor(objects).float().view(-1, 4)


def test_at_positive_a_box_is_an_object_and_below_negative_it_is_background():
    boxes = strips(8.0, 7.5, 7.0, 4.0, 3.0, 2.0)
    config = MaxIoUAssignerConfig(positive=0.75, negative=0.375)
    # IoU with a strip of 8: 1, .9375, .875, .5, .375, .25; .375 is not below .375, so it is ignored.
    assert assigned(config, boxes, strips(8.0)) == [0, 0, 0, IGNORED, IGNORED, BACKGROUND]
    exact = MaxIoUAssignerConfig(positive=0.5, negative=0.5)
    assert assigned(exact, boxes, strips(8.0)) == [0, 0, 0, 0, BACKGROUND, BACKGROUND]


def test_a_box_stands_for_the_object_it_overlaps_most():
    objects = torch.cat([strips(10.0), strips(8.0)])
    assert assigned(STRICT, strips(9.9, 8.1), objects) == [0, 1]


def test_of_objects_that_tie_the_first_is_taken():
    assert assigned(STRICT, strips(10.0), strips(10.0, 10.0)) == [0]


def test_without_low_quality_an_object_may_go_without_a_box():
    assert assigned(STRICT, strips(6.0, 5.0), strips(10.0)) == [IGNORED, IGNORED]


def test_low_quality_gives_an_object_its_best_box():
    assert assigned(RPN, strips(6.0, 5.0), strips(10.0)) == [0, IGNORED]


def test_low_quality_begins_at_min_positive():
    config = MaxIoUAssignerConfig(positive=0.75, negative=0.25, low_quality=True, min_positive=0.5)
    assert assigned(config, strips(8.0), strips(16.0)) == [0]
    assert assigned(config, strips(7.9), strips(16.0)) == [IGNORED]


def test_low_quality_gives_an_object_every_box_that_ties():
    boxes = torch.cat([strips(6.0), strips(6.0, x=4.0), strips(5.0)])
    assert assigned(RPN, boxes, strips(10.0)) == [0, 0, IGNORED]


def test_without_all_ties_the_first_of_the_tying_boxes_is_taken():
    boxes = torch.cat([strips(5.0), strips(6.0), strips(6.0, x=4.0)])
    config = MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.3, all_ties=False)
    assert assigned(config, boxes, strips(10.0)) == [IGNORED, 0, IGNORED]


@pytest.mark.parametrize("all_ties", [True, False])
def test_a_later_object_overrides_an_earlier_one(all_ties):
    config = MaxIoUAssignerConfig(positive=0.7, negative=0.3, low_quality=True, min_positive=0.3, all_ties=all_ties)
    assert assigned(config, strips(10.0), strips(10.0, 5.0)) == [1]  # though the first fits perfectly
    assert assigned(config, strips(10.0), strips(5.0, 10.0)) == [1]
    assert assigned(config, strips(10.0), strips(10.0, 2.0)) == [0]  # the second is below min_positive


def test_no_objects_make_everything_background():
    assert assigned(RPN, strips(1.0, 2.0), NO_OBJECTS) == [BACKGROUND, BACKGROUND]


def test_no_boxes_give_no_assignment():
    found = RPN.build()(NO_OBJECTS, strips(1.0))
    assert found.objects.shape == (0,)
    assert found.objects.dtype == torch.int64
    assert RPN.build()(NO_OBJECTS, NO_OBJECTS).objects.shape == (0,)


def test_positive_and_negative_are_ascending_and_leave_out_the_ignored():
    found = Assignment(torch.tensor([3, BACKGROUND, IGNORED, 0, BACKGROUND]))
    assert found.positive().tolist() == [0, 3]
    assert found.negative().tolist() == [1, 4]


def test_boxes_and_objects_may_differ_in_precision():
    for first, second in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        for config in (RPN, MaxIoUAssignerConfig(low_quality=True, all_ties=False)):
            assert config.build()(strips(10.0).to(first), strips(10.0).to(second)).objects.tolist() == [0]


def test_a_box_of_low_quality_may_stand_for_the_object_that_it_overlaps_most():
    """It is the best box of both objects, and overlaps the first more."""
    config = MaxIoUAssignerConfig(
        positive=0.7, negative=0.3, low_quality=True, min_positive=0.0, low_quality_object="nearest"
    )
    assert assigned(config, strips(10.0), strips(6.0, 5.0)) == [0]
    assert assigned(evolve(config, low_quality_object="its"), strips(10.0), strips(6.0, 5.0)) == [1]


@given(scenes(), st.booleans(), st.booleans(), st.sampled_from(["its", "nearest"]))
def test_the_rule_is_the_definition(scene, low_quality, all_ties, low_quality_object):
    boxes, objects = scene
    config = MaxIoUAssignerConfig(
        positive=0.5,
        negative=0.4,
        low_quality=low_quality,
        min_positive=0.2,
        all_ties=all_ties,
        low_quality_object=low_quality_object,
    )
    found = MaxIoUAssigner(config)(boxes, objects)
    assert found.objects.tolist() == by_definition(config, boxes, objects)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"positive": 0.3, "negative": 0.4}, r"negative \(0.4\) must not be above positive \(0.3\)"),
        ({"positive": 1.5}, r"positive\S*: found .+, expected .*at most 1"),
        ({"min_positive": -0.1}, r"min_positive\S*: found .+, expected .*at least 0"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MaxIoUAssignerConfig(**settings)
