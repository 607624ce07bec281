"""Guided anchors and what their shapes learn from, against slow transcriptions and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from attrs import evolve
from torch import Tensor

from det_core.boxes.box_config import MaxIoUAssignerConfig
from det_core.boxes.overlaps import box_iou
from det_core.structures import Targets
from det_core.testing.tiny_inputs import blank_batch
from det_plugin_guided_anchoring.anchoring import GuidedAnchors
from det_plugin_guided_anchoring.config import GuidedAnchorsConfig, RetinaNetGuidedAnchorsConfig
from det_plugin_guided_anchoring.shape import ShapeLoss, assign_cells

CONFIG = GuidedAnchorsConfig(base_scale=2.0)
RULE = MaxIoUAssignerConfig(positive=0.5, negative=0.4, low_quality=True, min_positive=0.3)


def cells(height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """(h * w, 9, 4): the approximate anchors of a level of stride 8."""
    guided = GuidedAnchors(CONFIG, (8,))
    return guided.approximate_anchors([(height, width)], torch.device("cpu")).to(dtype)


def slow_assignment(approximate: Tensor, objects: Tensor, rule: MaxIoUAssignerConfig) -> list[int]:
    """From the whole matrix of cells and objects: -2 ignored, -1 background, else the object."""
    if not len(objects):
        return [-1] * len(approximate)
    overlap = torch.stack([box_iou(approximate[:, i], objects) for i in range(approximate.shape[1])]).amax(0)
    assigned = []
    for row in overlap.tolist():
        best = max(row)
        assigned.append(row.index(best) if best >= rule.positive else -1 if best < rule.negative else -2)
    if rule.low_quality:
        for number, column in enumerate(overlap.T.tolist()):
            best = max(column)
            if best >= rule.min_positive:
                tied = [cell for cell, value in enumerate(column) if value == best]
                for cell in tied if rule.all_ties else tied[:1]:
                    assigned[cell] = number
    return assigned


def some(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 60
    return torch.cat([corners, corners + 4 + 40 * torch.rand(count, 2, generator=generator)], 1)


@pytest.mark.parametrize("rule", [RULE, evolve(RULE, low_quality=False), evolve(RULE, all_ties=False)])
@pytest.mark.parametrize(("count", "seed"), [(0, 0), (1, 1), (7, 2), (60, 3)])
def test_cells_are_assigned_as_from_the_whole_matrix(rule: MaxIoUAssignerConfig, count: int, seed: int) -> None:
    approximate, objects = cells(8, 10), some(count, seed)
    objects = torch.cat([objects, objects[:3]])  # equal objects: the first is best, the last takes its best cells
    found = assign_cells(approximate, objects, rule).objects.tolist()
    assert found == slow_assignment(approximate, objects, rule)


def test_ties_between_cells_and_between_anchors_of_a_cell() -> None:
    """A square between two cells: both tie; and two objects that different anchors of one cell fit as well."""
    between = torch.tensor([[4.0, 0.0, 20.0, 16.0]], dtype=torch.float64)
    approximate = cells(4, 4)
    rule = MaxIoUAssignerConfig(positive=0.9, negative=0.1, low_quality=True, min_positive=0.1)
    found = assign_cells(approximate, between, rule).objects
    assert found.tolist() == slow_assignment(approximate, between, rule)
    assert int((found == 0).sum()) == 2
    tall, wide = approximate[5, 6], approximate[5, 0]
    for pair in (torch.stack([tall, wide]), torch.stack([wide, tall])):
        rule = evolve(RULE, low_quality=False)
        assert assign_cells(approximate, pair, rule).objects[5] == 0


def test_nine_approximate_anchors_and_one_square() -> None:
    guided = GuidedAnchors(RetinaNetGuidedAnchorsConfig(), (8, 16))
    boxes = guided.approximate_anchors([(1, 2), (1, 1)], torch.device("cpu"))
    assert boxes.shape == (3, 9, 4)
    sides = boxes[..., 2:] - boxes[..., :2]
    assert sides[0, 3:6].tolist() == [pytest.approx([s, s], rel=1e-6) for s in (32 * 2 ** (i / 3) for i in range(3))]
    ratios = sides[0, :, 1] / sides[0, :, 0]
    assert ratios.tolist() == pytest.approx([0.5] * 3 + [1.0] * 3 + [2.0] * 3, rel=1e-5)
    squares = guided.squares([(1, 2), (1, 1)], torch.device("cpu"))
    assert squares[0].boxes.tolist() == [[-16.0, -16.0, 16.0, 16.0], [-8.0, -16.0, 24.0, 16.0]]
    assert squares[1].boxes.tolist() == [[-32.0, -32.0, 32.0, 32.0]]


def test_a_guided_anchor_keeps_its_centre_and_may_be_of_any_size() -> None:
    guided = GuidedAnchors(CONFIG, (8,))
    squares = torch.tensor([[0.0, 8.0, 16.0, 24.0]] * 3)
    shapes = torch.tensor([[0.0, 0.0], [1.0, -2.0], [80.0, 0.0]], dtype=torch.float64, requires_grad=True)
    anchors = guided.decode(squares, shapes)
    assert anchors.dtype == torch.float32  # assignments hang on it
    assert not anchors.requires_grad
    assert ((anchors[:, :2] + anchors[:, 2:]) / 2).tolist() == [pytest.approx([8.0, 16.0])] * 3
    sides = anchors[:, 2:] - anchors[:, :2]
    assert sides[1].tolist() == pytest.approx([16 * math.exp(0.14), 16 * math.exp(-0.28)], rel=1e-5)
    assert sides[2, 0].item() == pytest.approx(16 * math.exp(80 * 0.14), rel=1e-4)  # 73,000 times the square


def test_the_shape_loss_by_hand() -> None:
    """One cell of 16 x 16 stands for an object of 24 x 16 around its centre, the other for background.

    At dw = 0 the width's term is 1 - 16 / (24 + eps) = .333, in the linear part: .333 - .1; the height's is 0.
    """
    guided = GuidedAnchors(CONFIG, (8,))
    squares = torch.tensor([[0.0, 0.0, 16.0, 16.0], [100.0, 0.0, 116.0, 16.0]])
    target = Targets(boxes=torch.tensor([[-4.0, 0.0, 20.0, 16.0]]), labels=torch.tensor([0]))
    shapes = torch.zeros(1, 2, 2, requires_grad=True)
    loss = ShapeLoss(evolve(CONFIG, shape_assigner=RULE), guided.coder)
    everywhere = [torch.arange(2)]
    term = loss(shapes, squares, squares[:, None], everywhere, [target], blank_batch(32, 128))
    assert term.count == 2.0
    assert term.total.item() == pytest.approx(1 - 16 / 24.001 - 0.1, rel=1e-3)
    term.total.backward()
    assert shapes.grad is not None
    assert shapes.grad[0, 0, 0] < 0  # wider
    assert shapes.grad[0, 1].tolist() == [0.0, 0.0]
    nowhere = loss(shapes, squares, squares[:, None], [everywhere[0][:0]], [target], blank_batch(32, 128))
    assert (nowhere.total.item(), nowhere.count) == (0.0, 0.0)


def test_half_of_the_sampled_cells_at_most_are_positive() -> None:
    guided = GuidedAnchors(CONFIG, (8,))
    squares = guided.squares([(20, 20)], torch.device("cpu"))[0].boxes
    target = Targets(boxes=squares[:300].clone(), labels=torch.zeros(300, dtype=torch.int64))
    loss = ShapeLoss(CONFIG, guided.coder)
    usable = [torch.arange(400)]
    term = loss(torch.zeros(1, 400, 2), squares, squares[:, None], usable, [target], blank_batch(160, 160))
    assert 128 < term.count < 256  # 128 positives, and the few negatives that there are


@pytest.mark.parametrize(
    ("ratios", "border", "usable"),
    [
        ((1.0,), -1, [(row, column) for row in range(3) for column in range(5)]),
        ((1.0,), 0, [(1, 1), (1, 2), (1, 3)]),
        ((1.0,), 4, [(row, column) for row in (1, 2) for column in range(1, 5)]),
        ((0.25, 4.0), 0, [(1, 2), (2, 2)]),  # where the wide one fits, which is enough
    ],
)
def test_cells_beyond_the_batch_or_too_far_outside_do_not_train(
    ratios: tuple[float, ...], border: int, usable: list[tuple[int, int]]
) -> None:
    """A map of 4 x 6 cells over a batch of 24 x 40, with anchors of the area of 16 x 16."""
    config = evolve(CONFIG, ratios=ratios, scales_per_octave=1, allowed_border=border)
    guided = GuidedAnchors(config, (8,))
    levels = guided.squares([(4, 6)], torch.device("cpu"))
    approximate = guided.approximate_anchors([(4, 6)], torch.device("cpu"))
    (rows,) = guided.usable_cells(levels, approximate, blank_batch(24, 40))
    assert [(int(i) // 6, int(i) % 6) for i in rows.nonzero()] == usable
