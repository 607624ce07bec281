"""Overlaps: IoU and generalised IoU of hand-made boxes, and of boxes without area."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torchvision.ops import box_iou as torchvision_box_iou, generalized_box_iou as torchvision_giou

from det_core.boxes.overlaps import aligned_giou, box_area, box_iou


def box(*corners: float) -> Tensor:
    return torch.tensor([corners])


@st.composite
def box_sets(draw: st.DrawFn) -> Tensor:
    """1 to 6 boxes with corners in -50..150 and sides of at least 1."""
    rows = draw(
        st.lists(st.tuples(*[st.floats(-50, 50, width=32), st.floats(1, 100, width=32)] * 2), min_size=1, max_size=6)
    )
    return torch.tensor([[x, y, x + w, y + h] for x, w, y, h in rows], dtype=torch.float64)


def test_area_is_width_times_height():
    assert box_area(torch.tensor([[1.0, 2.0, 4.0, 7.0], [0.0, 0.0, 0.0, 9.0]])).tolist() == [15.0, 0.0]


def test_iou_by_hand():
    boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0], [10.0, 10.0, 20.0, 20.0]])
    others = torch.tensor([[2.0, 1.0, 6.0, 3.0], [0.0, 0.0, 4.0, 2.0], [4.0, 0.0, 8.0, 2.0]])
    # 2 x 1 shared of 8 + 8 - 2; identical; touching along an edge.
    assert box_iou(boxes, others).tolist() == [pytest.approx([2 / 14, 1.0, 0.0]), [0.0, 0.0, 0.0]]


def test_iou_counts_no_extra_pixel():
    assert box_iou(box(0, 0, 1, 1), box(0, 0, 2, 1)).item() == 0.5


@pytest.mark.parametrize("other", [(3.0, 3.0, 3.0, 3.0), (0.0, 0.0, 9.0, 9.0), (3.0, 0.0, 3.0, 9.0)])
def test_iou_with_a_box_of_no_area_is_zero_and_finite(other):
    assert box_iou(box(3, 3, 3, 3), box(*other)).item() == 0.0


def test_iou_of_no_boxes_is_empty():
    assert box_iou(torch.zeros(0, 4), box(0, 0, 1, 1)).shape == (0, 1)
    assert box_iou(box(0, 0, 1, 1), torch.zeros(0, 4)).shape == (1, 0)


@given(box_sets(), box_sets())
def test_iou_is_torchvisions(boxes, others):
    assert torch.allclose(box_iou(boxes, others), torchvision_box_iou(boxes, others), atol=1e-9)


def test_giou_by_hand():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 4.0, 2.0]])
    others = torch.tensor([[0.0, 0.0, 2.0, 2.0], [3.0, 0.0, 4.0, 1.0], [2.0, 1.0, 6.0, 3.0]])
    # Identical; a hull of 4 of which 2 are empty; 2 of 14 shared in a hull of 18.
    assert aligned_giou(boxes, others).tolist() == pytest.approx([1.0, -0.5, 2 / 14 - 4 / 18])


def test_giou_of_boxes_without_area_is_finite():
    value = aligned_giou(box(3, 3, 3, 3), box(3, 3, 3, 3))
    assert value.isfinite().all()


@given(box_sets())
def test_giou_is_the_diagonal_of_torchvisions(boxes):
    others = boxes.flip(0) + torch.tensor([1.0, -2.0, 3.0, 4.0])
    assert torch.allclose(aligned_giou(boxes, others), torchvision_giou(boxes, others).diagonal(), atol=1e-6)
