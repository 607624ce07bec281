"""The formulas of boxes that tests compute with, against numbers worked out on paper."""

from __future__ import annotations

import math

import pytest
import torch

from det_core.testing.box_formulas import box_stds, decode, encode, pairwise_iou

BOX = torch.tensor([[0.0, 0.0, 4.0, 2.0]], dtype=torch.float64)


def test_iou_of_every_pair():
    others = torch.tensor([[0.0, 0.0, 4.0, 2.0], [2.0, 0.0, 6.0, 2.0], [4.0, 0.0, 5.0, 1.0]]).double()
    assert pairwise_iou(BOX, others).tolist() == [[1.0, pytest.approx(4 / 12), 0.0]]


def test_deltas_are_shifts_by_size_and_logarithms_of_sizes_divided_by_stds():
    target = torch.tensor([[3.0, -1.0, 7.0, 3.0]], dtype=torch.float64)  # middle x 5, not 2; twice as high
    expected = [[3 / 4 / 0.1, 0.0, 0.0, math.log(2) / 0.2]]
    assert encode(BOX, target, box_stds(0.1, 0.2)).tolist() == [pytest.approx(row) for row in expected]


def test_decoding_clips_to_the_image():
    stds = box_stds(0.1, 0.2)
    target = torch.tensor([[1.0, 0.5, 3.0, 1.5]], dtype=torch.float64)
    assert torch.allclose(decode(BOX, encode(BOX, target, stds), stds, (2, 4)), target)
    beyond = torch.tensor([[-3.0, 1.0, 9.0, 8.0]], dtype=torch.float64)
    assert decode(BOX, encode(BOX, beyond, stds), stds, (5, 6)).tolist() == [pytest.approx([0.0, 1.0, 6.0, 5.0])]
