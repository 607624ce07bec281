"""What heads on every location share: rows of anchors, targets, the best candidates, suppression."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from det_core.boxes.box_config import DeltaCoderConfig, GridAnchorsConfig, MaxIoUAssignerConfig
from det_core.contracts import BACKGROUND, IGNORED, Assignment, Sampled
from det_core.model.dense_detection import (
    anchor_labels,
    dense_box_loss,
    dense_outputs,
    match_anchors,
    per_anchor,
    sample_all,
    within_border,
)
from det_core.model.loss_config import GIoUConfig, L1Config
from det_core.structures import Batch, ImageInfo, Targets

CPU = torch.device("cpu")
CODER = DeltaCoderConfig().build()
GRID = GridAnchorsConfig(scales=(1.0,), ratios=(1.0,))  # on stride s: s x s around (s x, s y)
ASSIGNER = MaxIoUAssignerConfig(positive=0.5, negative=0.4, low_quality=False).build()


def info(height: int, width: int, scale: tuple[float, float] = (1.0, 1.0)) -> ImageInfo:
    return ImageInfo(
        size=(height, width), original_size=(round(height / scale[0]), round(width / scale[1])), scale=scale
    )


def targets(*boxes: tuple[float, float, float, float]) -> Targets:
    return Targets(boxes=torch.tensor(boxes).view(-1, 4), labels=torch.zeros(len(boxes), dtype=torch.int64))


# rows


def test_rows_follow_the_anchors() -> None:
    """Row (y w + x) A + a holds the channels a * columns and on of the map at (y, x)."""
    count, per_cell, columns, h, w = 2, 3, 5, 2, 4
    maps = torch.randn(count, per_cell * columns, h, w)
    rows = per_anchor(maps, columns)
    assert rows.shape == (count, h * w * per_cell, columns)
    for image, y, x, a in ((0, 0, 0, 0), (1, 1, 2, 1), (0, 1, 3, 2), (1, 0, 3, 0)):
        expected = maps[image, a * columns : (a + 1) * columns, y, x]
        assert torch.equal(rows[image, (y * w + x) * per_cell + a], expected)


def test_outputs_of_levels_with_anchors_of_their_own_size() -> None:
    maps = [(torch.randn(2, 3, 2, 4), torch.randn(2, 4, 2, 4)), (torch.randn(2, 3, 1, 2), torch.randn(2, 4, 1, 2))]
    outputs = dense_outputs([s for s, _ in maps], [d for _, d in maps], 3, GRID.build((8, 16)))
    assert [tuple(x.shape) for x in outputs.scores] == [(2, 8, 3), (2, 2, 3)]
    assert [tuple(x.shape) for x in outputs.deltas] == [(2, 8, 4), (2, 2, 4)]
    assert [len(level.boxes) for level in outputs.anchors] == [8, 2]
    assert outputs.anchors[1].boxes.tolist() == [[-8, -8, 8, 8], [8, -8, 24, 8]]


# targets


def matched(
    height: int, width: int, target: Targets, border: int = -1, padded: tuple[int, int] = (16, 64)
) -> list[int]:
    """What the anchors around x = 0, 16, 32, 48 and y = 0 stand for in an image of this size."""
    levels = GRID.build((16,))([(1, 4)], CPU)
    batch = Batch(images=torch.zeros(1, 3, *padded), infos=(info(height, width),))
    matches = match_anchors(levels, (16,), ASSIGNER, [target], batch, border)
    assert all(torch.equal(anchors, levels[0].boxes) for anchors in matches.anchors)
    (assignment,) = matches.assignments
    found: list[int] = assignment.objects.tolist()
    return found


OBJECT = targets((8.0, -8.0, 24.0, 8.0))  # the second anchor itself


def test_all_anchors_train_where_nothing_forbids_it() -> None:
    assert matched(16, 64, OBJECT) == [BACKGROUND, 0, BACKGROUND, BACKGROUND]
    assert matched(16, 64, targets()) == [BACKGROUND] * 4


def test_cells_that_begin_beyond_the_padded_batch_do_not_train() -> None:
    assert matched(16, 40, OBJECT, padded=(16, 40)) == [BACKGROUND, 0, BACKGROUND, IGNORED]
    assert matched(16, 40, OBJECT, padded=(16, 64)) == [BACKGROUND, 0, BACKGROUND, BACKGROUND]
    beyond = targets((40.0, -8.0, 56.0, 8.0))
    assert matched(16, 40, beyond, padded=(16, 40)) == [BACKGROUND] * 3 + [IGNORED]


def test_those_behind_one_that_does_not_train_keep_their_objects() -> None:
    levels = GRID.build((16,))([(2, 4)], CPU)
    batch = Batch(images=torch.zeros(1, 3, 32, 40), infos=(info(32, 40),))
    first_of_second_row = targets((-8.0, 8.0, 8.0, 24.0))
    (assignment,) = match_anchors(levels, (16,), ASSIGNER, [first_of_second_row], batch).assignments
    row = [BACKGROUND] * 3 + [IGNORED]
    assert assignment.objects.tolist() == [*row, 0, *row[1:]]


def test_anchors_that_reach_out_of_their_image_do_not_train() -> None:
    """All reach 8 out above; the first also on the left, the last two on the right of an image 40 wide."""
    assert matched(16, 64, OBJECT, border=0) == [IGNORED] * 4
    assert matched(16, 64, OBJECT, border=8) == [BACKGROUND, 0, BACKGROUND, BACKGROUND]
    assert matched(16, 40, OBJECT, border=9) == [BACKGROUND, 0, BACKGROUND, IGNORED]
    assert matched(16, 40, targets(), border=9) == [BACKGROUND, BACKGROUND, BACKGROUND, IGNORED]


def test_a_border_is_exact() -> None:
    """Left and above it may be reached, right and below not quite."""
    anchors = torch.tensor(
        [[-4.0, 0, 8, 8], [-4.5, 0, 8, 8], [0, 0, 23.5, 8], [0, 0, 24, 8], [0, -5, 1, 1], [0, 0, 1, 14]]
    )
    assert within_border(anchors, info(10, 20), 4).tolist() == [True, False, True, False, False, False]
    assert within_border(anchors, info(10, 20), 5).tolist() == [True, True, True, True, True, True]
    assert within_border(anchors, info(10, 20), -1).all()


def test_each_image_has_its_own_objects() -> None:
    levels = GRID.build((16,))([(1, 2)], CPU)
    batch = Batch(images=torch.zeros(2, 3, 16, 32), infos=(info(16, 32),) * 2)
    matches = match_anchors(levels, (16,), ASSIGNER, [targets(), OBJECT], batch)
    assert [a.objects.tolist() for a in matches.assignments] == [[BACKGROUND] * 2, [BACKGROUND, 0]]


def test_everything_that_stands_for_something() -> None:
    chosen = sample_all(Assignment(torch.tensor([BACKGROUND, 1, IGNORED, 0, BACKGROUND])))
    assert chosen.positive.tolist() == [1, 3]
    assert chosen.negative.tolist() == [0, 4]
    assert chosen.objects.tolist() == [1, 0]


def test_labels_of_anchors() -> None:
    """The class of an anchor's object, background, or neither; an image without objects among them."""
    chosen = [
        Sampled(torch.tensor([1, 3]), torch.tensor([0]), torch.tensor([1, 0])),
        Sampled(torch.tensor([], dtype=torch.int64), torch.tensor([0, 1, 3]), torch.tensor([], dtype=torch.int64)),
    ]
    wanted = [targets((0.0, 0, 1, 1), (36.0, 0, 52, 16)), targets()]
    wanted[0] = evolve(wanted[0], labels=torch.tensor([4, 2]))
    assert anchor_labels(chosen, wanted, 4, background=7).tolist() == [[7, 2, -1, 4], [7, 7, -1, 7]]


def test_the_box_loss_of_positives() -> None:
    """Deltas of .25 and 0 to an object that is a quarter of its side to the right."""
    anchors = torch.tensor([[0.0, 0, 16, 16], [32, 0, 48, 16], [64, 0, 80, 16]])
    deltas = torch.tensor([[[9.0, 9, 9, 9], [0.25, 0, 0, 0], [9, 9, 9, 9]], [[0.0, 0, 0, 0]] + [[9.0, 9, 9, 9]] * 2])
    chosen = [
        Sampled(torch.tensor([1]), torch.tensor([0]), torch.tensor([1])),
        Sampled(torch.tensor([0]), torch.tensor([1]), torch.tensor([0])),
    ]
    wanted = [targets((0.0, 0, 1, 1), (36.0, 0, 52, 16)), targets((4.0, 0, 20, 16))]
    term = dense_box_loss(L1Config().build(), CODER, [anchors] * 2, list(deltas), chosen, wanted, 4.0)
    assert term.total.item() == pytest.approx(0.25)
    assert term.value().item() == pytest.approx(0.0625)
    boxes = dense_box_loss(GIoUConfig().build(), CODER, [anchors] * 2, list(deltas), chosen, wanted, 1.0)
    assert boxes.total.item() == pytest.approx(1 - 12 / 20)  # of boxes, where a loss compares these


def test_without_positives_the_box_loss_is_zero_with_a_gradient() -> None:
    deltas = torch.randn(1, 3, 4, requires_grad=True)
    nothing = Sampled(*(torch.zeros(0, dtype=torch.int64) for _ in range(3)))
    term = dense_box_loss(L1Config().build(), CODER, [torch.rand(3, 4)], list(deltas), [nothing], [targets()], 0.0)
    assert term.value().item() == 0.0
    term.value().backward()
    assert deltas.grad is not None
    assert deltas.grad.abs().sum() == 0


def test_anchors_may_end_at_the_border_as_they_begin_there() -> None:
    anchors = torch.tensor([[0.0, 0.0, 20.0, 10.0], [0.0, 0.0, 20.5, 10.0], [0.0, -0.5, 20.0, 10.0]])
    assert within_border(anchors, info(10, 20), 0).tolist() == [False, False, False]
    assert within_border(anchors, info(10, 20), 0, touching=True).tolist() == [True, False, False]
