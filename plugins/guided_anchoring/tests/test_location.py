"""Which cells should have an anchor, against a slow transcription of the rule, and the loss by hand."""

from __future__ import annotations

import math

import pytest
import torch
from attrs import evolve
from torch import Tensor

from det_plugin_guided_anchoring.config import GuidedAnchorsConfig
from det_plugin_guided_anchoring.location import CENTRE, IGNORED, NEGATIVE, LocationLoss, regions, target_levels

CONFIG = GuidedAnchorsConfig(base_scale=4.0)
STRIDES = (8, 16, 32)
SIZES = ((12, 16), (6, 8), (3, 4))  # of an image of 96 x 128


def loss_of(**settings: object) -> LocationLoss:
    return LocationLoss(evolve(CONFIG, **settings), STRIDES)  # type: ignore[arg-type]


def many(count: int, seed: int) -> Tensor:
    """Boxes of 2 to 162 pixels, many of them partly out of the image."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([128.0, 96.0])
    return torch.cat([corners, corners + 2 + 160 * torch.rand(count, 2, generator=generator) ** 2], 1)


def cells_of(box: list[float], ratio: float, stride: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """(row, column) of a region's cells; Python rounds halves to even, as torch does."""
    edge = (1 - ratio) / 2
    x1, y1, x2, y2 = (value / stride for value in box)
    left, right = round((1 - edge) * x1 + edge * x2), round(edge * x1 + (1 - edge) * x2)
    top, bottom = round((1 - edge) * y1 + edge * y2), round(edge * y1 + (1 - edge) * y2)
    rows = range(min(max(top, 0), size[0] - 1), min(max(bottom, 0), size[0] - 1) + 1)
    columns = range(min(max(left, 0), size[1] - 1), min(max(right, 0), size[1] - 1) + 1)
    return [(row, column) for row in rows for column in columns]


def slow_targets(boxes: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Of every level what is 1, and the weights: -1 unset, then 0, 1 and .1, object after object."""
    ones = [torch.zeros(size, dtype=torch.float64) for size in SIZES]
    weights = [torch.full(size, -1.0, dtype=torch.float64) for size in SIZES]
    nearby = [torch.zeros(size, dtype=torch.bool) for size in SIZES]
    for box in boxes.tolist():
        side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        level = min(max(math.floor(math.log2(side) - math.log2(4 * 8) + 0.5), 0), 2)
        for cell in cells_of(box, 0.5, STRIDES[level], SIZES[level]):
            weights[level][cell] = 0
        for cell in cells_of(box, 0.2, STRIDES[level], SIZES[level]):
            ones[level][cell], weights[level][cell] = 1, 1
        for other in (level - 1, level + 1):
            if 0 <= other <= 2:
                for cell in cells_of(box, 0.5, STRIDES[other], SIZES[other]):
                    nearby[other][cell] = True
    for number, weight in enumerate(weights):
        weight[(weight < 0) & nearby[number]] = 0
        weight[weight < 0] = 0.1
    return ones, weights


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (1, 1), (4, 2), (40, 3), (300, 4)])
def test_cells_are_those_of_a_slow_transcription(count: int, seed: int) -> None:
    boxes = many(count, seed)
    kinds = loss_of().targets(boxes, SIZES)
    ones, weights = (torch.cat([x.flatten() for x in maps]) for maps in slow_targets(boxes))
    assert torch.equal(torch.tensor([0.1, 0.0, 1.0], dtype=torch.float64)[kinds.long()], weights)
    assert torch.equal(kinds == CENTRE, (weights == 1) & (ones == 1))
    if 1 < count < 300:
        assert all(int((kinds == kind).sum()) > 3 for kind in (NEGATIVE, IGNORED, CENTRE))


@pytest.mark.parametrize(
    ("side", "level"), [(0.0, 0), (8.0, 0), (45.0, 0), (46.0, 1), (90.0, 1), (91.0, 2), (1000.0, 2)]
)
def test_an_object_goes_to_the_level_nearest_in_size(side: float, level: int) -> None:
    """Squares of 32, 64 and 128 pixels; the borders are at 32 * sqrt(2) = 45.3 and 90.5."""
    boxes = torch.tensor([[5.0, 5.0, 5.0 + side * 2, 5.0 + side / 2]])
    assert target_levels(boxes, 3, 32.0).tolist() == [level]


def test_a_region_by_hand() -> None:
    """Of a box of 10 x 5 cells the middle half: 2.5 cells in from the sides, 1.25 from above; halves round to even."""
    box = torch.tensor([[0.0, 16.0, 80.0, 56.0]])
    assert regions(box, 0.5, 8, (12, 16)).tolist() == [[2, 3, 8, 6]]
    assert regions(box, 0.5, 8, (6, 8)).tolist() == [[2, 3, 7, 5]]
    assert regions(box, 1.0, 8, (12, 16)).tolist() == [[0, 2, 10, 7]]


def test_an_object_at_the_border_has_a_cell() -> None:
    kinds = loss_of().targets(torch.tensor([[124.0, 92.0, 128.0, 96.0]]), SIZES)
    assert (kinds == CENTRE).nonzero().flatten().tolist() == [12 * 16 - 1]


@pytest.mark.parametrize("labels", ["centre", "inverted"])
def test_the_loss_by_hand(labels: str) -> None:
    boxes = [many(3, 5), many(0, 0)]
    logits = torch.randn(2, 12 * 16 + 6 * 8 + 3 * 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = list(logits.split([12 * 16, 6 * 8, 3 * 4], 1))
    term = loss_of(location_labels=labels)(levels, boxes, SIZES)
    wanted = 0.0
    for row, objects in zip(logits, boxes, strict=True):
        ones, weights = (torch.cat([x.flatten() for x in maps]) for maps in slow_targets(objects))
        for logit, one, weight in zip(row.tolist(), ones.tolist(), weights.tolist(), strict=True):
            p = 1 / (1 + math.exp(-logit))
            positive, negative = -0.25 * (1 - p) ** 2 * math.log(p), -0.75 * p**2 * math.log(1 - p)
            wanted += weight * (positive if (one == 1) == (labels == "centre") else negative)
    assert term.total.item() == pytest.approx(wanted, rel=1e-9)
    assert term.count == 2 * 252 / 200


def test_settings_count() -> None:
    levels = [torch.zeros(1, h * w) for h, w in SIZES]
    boxes = [torch.tensor([[32.0, 32.0, 64.0, 64.0]])]
    usual = loss_of()(levels, boxes, SIZES)
    assert loss_of(location_cells=100)(levels, boxes, SIZES).count == 2 * usual.count
    assert loss_of(negative_weight=0.0)(levels, boxes, SIZES).total < usual.total
    wide = loss_of(centre_ratio=1.0, ignore_ratio=1.0).targets(boxes[0], SIZES)
    assert int((wide == CENTRE).sum()) == 25  # cells 4 to 8 both ways
