"""Overlaps and assignment of boxes against plain Python, and every implementation against the reference."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from op_samples import boxes, native, reference, scattered, serve

import det_ops

SIZES = (0, 1, 3, 63, 64, 65)
INF, NAN = math.inf, math.nan
grid = st.integers(-4, 8).map(float)
hostile = st.one_of(grid, st.sampled_from([NAN, INF, -INF, 1e8, -1e8]))
some_boxes = st.lists(st.tuples(*[hostile] * 4), max_size=40)
grid_boxes = st.lists(st.tuples(*[grid] * 4), max_size=70)


def table(drawn, dtype=torch.float32):
    return torch.tensor(drawn, dtype=dtype).reshape(-1, 4)


def overlap(a, b, mode="iou", offset=0):
    """One overlap, from lists of floats."""
    inter = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    first = (a[2] - a[0] + offset) * (a[3] - a[1] + offset)
    union = first if mode == "iof" else first + (b[2] - b[0] + offset) * (b[3] - b[1] + offset) - inter
    iou = inter / max(union, 1e-6)
    if mode != "giou":
        return iou
    width, height = max(a[2], b[2]) - min(a[0], b[0]) + offset, max(a[3], b[3]) - min(a[1], b[1]) + offset
    hull = max(max(0.0, width) * max(0.0, height), 1e-6)
    return iou - (hull - union) / hull


def assigned_in_plain_python(ours, objects, positive, negative, least, low_quality, all_ties):
    matrix = [[overlap(a, b) for b in objects] for a in ours]
    best = [max(row, default=0.0) for row in matrix]
    result = []
    for row, most in zip(matrix, best, strict=True):
        result.append(-1 if row and most >= negative else 0)
        if row and most >= positive:
            result[-1] = row.index(most) + 1
    for j in range(len(objects) if low_quality and ours else 0):
        top = max(row[j] for row in matrix)
        ties = [i for i, row in enumerate(matrix) if row[j] == top and top >= least]
        for i in ties if all_ties else ties[:1]:
            result[i] = j + 1
    return result, best


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("mode", ["iou", "iof", "giou"])
@pytest.mark.parametrize("offset", [0, 1])
def test_overlaps_are_what_one_would_write_on_paper(server, mode, offset):
    ours, others = boxes(17, dtype=torch.float64), boxes(19, 5, dtype=torch.float64)
    expected = [[overlap(a, b, mode, offset) for b in others.tolist()] for a in ours.tolist()]
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


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("all_ties", [False, True])
@settings(max_examples=30, deadline=None)
@given(drawn=grid_boxes, objects=grid_boxes, least=st.sampled_from([0.0, 0.3]))
def test_assignment_is_what_one_would_write_on_paper(server, low_quality, all_ties, drawn, objects, least):
    ours, theirs = table(drawn, torch.float64), table(objects, torch.float64)
    rules = (0.5, 0.3, least, low_quality, all_ties)
    expected, best = assigned_in_plain_python(ours.tolist(), theirs.tolist(), *rules)
    assigned, found = serve(server, "max_iou_assign", ours, theirs, *rules)
    assert assigned.tolist() == expected
    assert found.tolist() == pytest.approx(best)


@settings(max_examples=100, deadline=None)
@given(drawn=some_boxes, objects=some_boxes, low_quality=st.booleans(), all_ties=st.booleans())
def test_native_assignment_equals_the_reference_for_hostile_boxes(
    native_library, drawn, objects, low_quality, all_ties
):
    arguments = (table(drawn), table(objects), 0.5, 0.4, 0.0, low_quality, all_ties)
    ours, theirs = native("max_iou_assign", *arguments), reference("max_iou_assign", *arguments)
    assert ours[0].tolist() == theirs[0].tolist()
    assert ours[1].tolist() == theirs[1].tolist()


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 4095, 4097, 9000])
@pytest.mark.parametrize("objects", [0, 1, 17])
@pytest.mark.parametrize("all_ties", [False, True])
def test_native_assignment_equals_the_reference_at_every_size(native_library, count, objects, all_ties):
    crowd, few = boxes(count).round(), boxes(objects, 5).round()  # whole numbers: many ties
    arguments = (crowd, few, 0.5, 0.4, 0.1, True, all_ties)
    ours, theirs = native("max_iou_assign", *arguments), reference("max_iou_assign", *arguments)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


def test_a_box_that_is_not_a_number_is_background():
    broken = torch.tensor([[NAN, 0.0, 10, 10]]).repeat(20, 1)
    assigned, best = det_ops.max_iou_assign(broken, torch.tensor([[0.0, 0, 10, 10]]), 0.5, 0.4, 0.1)
    assert not assigned.any()
    assert not best.any()


def test_strides_do_not_matter():
    crowd, few = boxes(90), boxes(7, 5)
    assert torch.equal(det_ops.box_overlaps(scattered(crowd), scattered(few)), det_ops.box_overlaps(crowd, few))
    ours = det_ops.max_iou_assign(scattered(crowd), scattered(few), 0.5, 0.4)
    assert torch.equal(ours[0], det_ops.max_iou_assign(crowd, few, 0.5, 0.4)[0])
