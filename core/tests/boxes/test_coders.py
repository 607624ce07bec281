"""Boxes to deltas and back: by hand, there and back again, the clips, and the precision."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, strategies as st

from det_core.boxes.box_config import DeltaCoderConfig
from det_core.boxes.coders import clip
from det_core.contracts import BoxCoder

STDS = (0.1, 0.1, 0.2, 0.2)
ANCHOR = torch.tensor([[10.0, 20.0, 30.0, 60.0]])  # centre (20, 40), 20 wide, 40 high


def some_boxes() -> st.SearchStrategy[list[float]]:
    """x, y, width, height."""
    position, side = st.floats(-100, 1000, width=32), st.floats(1, 500, width=32)
    return st.tuples(position, position, side, side).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])


def test_encode_by_hand():
    box = torch.tensor([[20.0, 40.0, 60.0, 60.0]])  # centre (40, 50), 40 wide, 20 high
    expected = [1.0, 0.25, math.log(2), math.log(0.5)]
    assert DeltaCoderConfig().build().encode(ANCHOR, box)[0].tolist() == pytest.approx(expected)


def test_means_are_subtracted_and_stds_divided_by():
    box = torch.tensor([[20.0, 40.0, 60.0, 60.0]])
    coder = DeltaCoderConfig(means=(0.5, 0.25, 0.0, 0.0), stds=STDS).build()
    expected = [5.0, 0.0, math.log(2) / 0.2, math.log(0.5) / 0.2]
    assert coder.encode(ANCHOR, box)[0].tolist() == pytest.approx(expected)


def test_decode_by_hand():
    deltas = torch.tensor([[1.0, 0.25, math.log(2), math.log(0.5)]])
    assert DeltaCoderConfig().build().decode(ANCHOR, deltas)[0].tolist() == pytest.approx([20, 40, 60, 60], rel=1e-5)


def test_zero_deltas_leave_the_anchor():
    assert torch.equal(DeltaCoderConfig(stds=STDS).build().decode(ANCHOR, torch.zeros(1, 4)), ANCHOR)


@given(some_boxes(), some_boxes())
def test_decode_undoes_encode(anchor, box):
    coder = DeltaCoderConfig(means=(0.1, -0.2, 0.3, 0.0), stds=STDS, max_ratio=1e-4).build()
    anchors, boxes = (torch.tensor([b], dtype=torch.float64) for b in (anchor, box))
    assert torch.allclose(coder.decode(anchors, coder.encode(anchors, boxes)), boxes, rtol=1e-9, atol=1e-6)


def test_size_deltas_are_clipped_at_the_log_of_16_over_1000_and_shifts_are_not():
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    wide = DeltaCoderConfig().build().decode(anchor, torch.tensor([[0.0, 0.0, 50.0, -50.0]]))[0]
    assert wide.tolist() == pytest.approx([8 - 500, 8 - 0.128, 8 + 500, 8 + 0.128], rel=1e-4)
    far = DeltaCoderConfig().build().decode(anchor, torch.tensor([[50.0, -50.0, 0.0, 0.0]]))[0]
    assert far.tolist() == [800, -800, 816, -784]


def test_the_clip_holds_for_deltas_after_their_normalisation_is_undone():
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    limit = math.log(1000 / 16)
    coder = DeltaCoderConfig(stds=STDS).build()
    inside, outside = (
        coder.decode(anchor, torch.tensor([[0.0, 0.0, d / 0.2, 0.0]])) for d in (limit - 0.1, limit + 0.1)
    )
    assert (inside[0, 2] - inside[0, 0]).item() == pytest.approx(1000 * math.exp(-0.1), rel=1e-4)
    assert (outside[0, 2] - outside[0, 0]).item() == pytest.approx(1000, rel=1e-4)


def test_boxes_are_clipped_to_the_width_in_x_and_the_height_in_y():
    boxes = torch.tensor([[-5.0, -6.0, 500.0, 500.0], [300.0, 80.0, 310.0, 90.0], [350.0, 120.0, 360.0, 130.0]])
    assert clip(boxes, (100, 300)).tolist() == [[0, 0, 300, 100], [300, 80, 300, 90], [300, 100, 300, 100]]
    decoded = DeltaCoderConfig().build().decode(boxes, torch.zeros(3, 4), (100, 300))
    assert torch.equal(decoded, clip(boxes, (100, 300)))


def test_many_boxes_of_one_anchor():
    deltas = torch.zeros(1, 3, 4)
    deltas[0, 1, 0] = 1.0
    found = DeltaCoderConfig().build().decode(ANCHOR, deltas, (50, 45))
    assert found.tolist() == [[[10, 20, 30, 50], [30, 20, 45, 50], [10, 20, 30, 50]]]


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_deltas_are_decoded_in_float32(half):
    anchors = torch.tensor([[1000.25, 500.5, 1111.75, 777.125]])
    deltas = torch.tensor([[0.3, -0.2, 0.1, 0.4]], dtype=half)
    coder = DeltaCoderConfig(stds=STDS).build()
    found = coder.decode(anchors, deltas, (1000, 2000))
    assert found.dtype == torch.float32
    assert torch.equal(found, coder.decode(anchors, deltas.float(), (1000, 2000)))


def test_no_boxes():
    coder = DeltaCoderConfig().build()
    none = torch.zeros(0, 4)
    assert coder.encode(none, none).shape == (0, 4)
    assert coder.decode(none, none, (10, 20)).shape == (0, 4)
    assert coder.decode(none, torch.zeros(0, 7, 4), (10, 20)).shape == (0, 7, 4)


def test_encode_works_in_the_precision_of_the_boxes():
    found = DeltaCoderConfig().build().encode(ANCHOR, ANCHOR.double())
    assert found.dtype == torch.float64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stds": (1.0, 0.0, 1.0, 1.0)}, r"stds\S*: found .+, expected .*above 0"),
        ({"max_ratio": 1.0}, r"max_ratio\S*: found .+, expected .*below 1"),
        ({"max_ratio": 0.0}, r"max_ratio\S*: found .+, expected .*above 0"),
    ],
)
def test_settings_that_cannot_be_decoded_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DeltaCoderConfig(**settings)


def test_shrinking_may_go_unclipped():
    anchor, deltas = torch.tensor([[0.0, 0.0, 1000.0, 1000.0]]), torch.tensor([[0.0, 0.0, -10.0, 10.0]])
    both = DeltaCoderConfig().build().decode(anchor, deltas)
    grown = DeltaCoderConfig(clip_shrinking=False).build().decode(anchor, deltas)
    assert (both[0, 2] - both[0, 0]).item() == pytest.approx(16.0, rel=1e-4)
    assert (grown[0, 2] - grown[0, 0]).item() == pytest.approx(1000 * math.exp(-10), abs=1e-3)
    assert (grown[0, 3] - grown[0, 1]).item() == pytest.approx(62500.0, rel=1e-4)


def test_kept_constants_follow_the_dtype_and_can_be_used_in_training():
    coder = DeltaCoderConfig(means=(0.1, 0.2, 0.3, 0.4), stds=STDS).build()
    with torch.inference_mode():
        coder.decode(ANCHOR, torch.zeros(1, 4))
    deltas = torch.zeros(1, 4, requires_grad=True)
    coder.decode(ANCHOR, deltas).sum().backward()
    assert deltas.grad is not None
    assert coder.decode(ANCHOR.double(), deltas.double()).dtype == torch.float64


def test_of_a_box_outside_a_pixel_remains_where_pixels_are_clipped():
    boxes = torch.tensor([[-9.0, -9.0, -3.0, -2.0], [90.0, 70.0, 95.0, 75.0], [-1.0, 2.0, 81.0, 61.0]])
    size, zeros = (60, 80), torch.zeros(3, 4)
    coder = DeltaCoderConfig(border="pixel").build()
    assert coder.decode(boxes, zeros, size).tolist() == [[0, 0, 1, 1], [79, 59, 80, 60], [0, 2, 80, 60]]
    assert DeltaCoderConfig().build().decode(boxes, zeros, size).tolist()[:2] == [[0, 0, 0, 0], [80, 60, 80, 60]]


@pytest.mark.parametrize("border", ["pixel", "edge"])
@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 3, 7, 4)])
def test_boxes_of_a_batch_are_clipped_as_those_of_each_image(border, shape):
    coder, sizes = DeltaCoderConfig(border=border).build(), [(10, 20), (30, 7)]
    boxes = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 60 - 15
    boxes[0, 0, ..., 1] = torch.nan
    expected = torch.stack([coder.clip(own, size) for own, size in zip(boxes, sizes, strict=True)])
    assert torch.equal(coder.clip_batch(boxes, sizes).nan_to_num(-1), expected.nan_to_num(-1))
    assert torch.equal(BoxCoder.clip_batch(coder, boxes, sizes).nan_to_num(-1), expected.nan_to_num(-1))
