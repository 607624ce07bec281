"""Overlaps of boxes against plain Python, and every implementation against the reference."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from op_samples import boxes, native, overlap_on_paper, reference, scattered, serve, table

import det_ops

SIZES = (0, 1, 3, 63, 64, 65)
NAN = math.nan
grid = st.integers(-4, 8).map(float)
hostile = st.one_of(grid, st.sampled_from([NAN, math.inf, -math.inf, 1e8, -1e8]))
some_boxes = st.lists(st.tuples(*[hostile] * 4), max_size=40)
grid_boxes = st.lists(st.tuples(*[grid] * 4), max_size=70)


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("mode", ["iou", "iof", "giou"])
@pytest.mark.parametrize("offset", [0, 1])
def test_overlaps_are_what_one_would_write_on_paper(server, mode, offset):
    ours, others = boxes(17, dtype=torch.float64), boxes(19, 5, dtype=torch.float64)
    expected = [[overlap_on_paper(a, b, mode, offset) for b in others.tolist()] for a in ours.tolist()]
    found = serve(server, "box_overlaps", ours, others, mode, False, offset)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("mode", ["iou", "iof", "giou"])
def test_boxes_without_area_overlap_by_nothing(mode):
    point = torch.ones(1, 4)
    assert float(det_ops.box_overlaps(point, point, mode)) == (-1.0 if mode == "giou" else 0.0)


@pytest.mark.parametrize("mode", ["iou", "iof", "giou"])
@pytest.mark.parametrize("count", SIZES)
def test_aligned_is_the_diagonal(mode, count):
    ours, others = boxes(count), boxes(count, 5)
    everything = det_ops.box_overlaps(ours, others, mode)
    assert torch.equal(det_ops.box_overlaps(ours, others, mode, aligned=True), everything.diagonal())


@settings(max_examples=100, deadline=None)
@given(drawn=some_boxes, others=some_boxes, mode=st.sampled_from(["iou", "giou"]), offset=st.integers(0, 1))
def test_native_overlaps_equal_the_reference_for_hostile_boxes(native_library, drawn, others, mode, offset):
    arguments = (table(drawn), table(others), mode, False, offset)
    ours, theirs = native("box_overlaps", *arguments), reference("box_overlaps", *arguments)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@settings(max_examples=50, deadline=None)
@given(drawn=grid_boxes, others=grid_boxes, mode=st.sampled_from(["iou", "iof", "giou"]), offset=st.integers(0, 1))
def test_native_overlaps_equal_the_reference_exactly_on_grids(native_library, drawn, others, mode, offset):
    arguments = (table(drawn), table(others), mode, False, offset)
    assert torch.equal(native("box_overlaps", *arguments), reference("box_overlaps", *arguments))


@pytest.mark.parametrize("mode", ["iou", "iof", "giou"])
@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("filler", [0, 40])
def test_a_box_that_is_not_a_number_gives_an_overlap_that_is_none(mode, server, filler):
    for place in range(4):
        broken = torch.tensor([[0.0, 0, 10, 10]])
        broken[0, place] = NAN
        whole = torch.tensor([[0.0, 0, 10, 10]]).repeat(1 + filler, 1)
        assert serve(server, "box_overlaps", whole, broken, mode, False, 0).isnan().all()
        assert serve(server, "box_overlaps", broken, whole, mode, False, 0).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_overlaps_are_float32_or_better(dtype):
    ours, others = boxes(9, dtype=dtype), boxes(8, 5, dtype=dtype)
    found = det_ops.box_overlaps(ours, others)
    full = torch.float64 if dtype == torch.float64 else torch.float32
    assert found.dtype == full
    assert torch.equal(found, det_ops.box_overlaps(ours.to(full), others.to(full)))


@pytest.mark.parametrize("mode", ["iou", "iof", "giou"])
@pytest.mark.parametrize("aligned", [False, True])
def test_overlaps_have_the_right_gradient_in_both(mode, aligned):
    ours, others = (boxes(6, seed, 20, torch.float64).requires_grad_() for seed in (0, 5))
    assert torch.autograd.gradcheck(lambda a, b: det_ops.box_overlaps(a, b, mode, aligned, 1), (ours, others))
    with torch.no_grad():
        without = det_ops.box_overlaps(ours, others, mode, aligned, 1)
    torch.testing.assert_close(det_ops.box_overlaps(ours, others, mode, aligned, 1).detach(), without)


def test_strides_do_not_matter():
    crowd, few = boxes(90), boxes(7, 5)
    assert torch.equal(det_ops.box_overlaps(scattered(crowd), scattered(few)), det_ops.box_overlaps(crowd, few))
