"""Assignment of boxes against plain Python, and every implementation against the reference, which works in chunks."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from op_samples import boxes, native, overlap_on_paper, reference, scattered, serve, table

import det_ops
from det_ops.reference import boxes as reference_boxes

NAN = math.nan
grid = st.integers(-4, 8).map(float)
hostile = st.one_of(grid, st.sampled_from([NAN, math.inf, -math.inf, 1e8, -1e8]))
some_boxes = st.lists(st.tuples(*[hostile] * 4), max_size=40)
grid_boxes = st.lists(st.tuples(*[grid] * 4), max_size=70)


def assigned_in_plain_python(ours, objects, positive, negative, least, low_quality, all_ties):
    matrix = [[overlap_on_paper(a, b) for b in objects] for a in ours]
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
    ours = det_ops.max_iou_assign(scattered(crowd), scattered(few), 0.5, 0.4)
    assert torch.equal(ours[0], det_ops.max_iou_assign(crowd, few, 0.5, 0.4)[0])


def boxes_on_a_grid(count: int, seed: int) -> torch.Tensor:
    """Boxes on a coarse grid, so that many overlaps tie."""
    corner = torch.randint(0, 6, (count, 2), generator=torch.Generator().manual_seed(seed)).float()
    return torch.cat([corner, corner + 1 + torch.randint(0, 3, (count, 2)).float()], 1)


@given(
    st.integers(0, 30), st.integers(0, 6), st.integers(0, 99), st.booleans(), st.booleans(), st.sampled_from([1, 3, 7])
)
def test_chunks_change_nothing(boxes, objects, seed, low_quality, all_ties, chunk):
    arguments = (boxes_on_a_grid(boxes, seed), boxes_on_a_grid(objects, seed + 1), 0.5, 0.4, 0.2, low_quality, all_ties)
    whole = reference_boxes.max_iou_assign(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference_boxes, "CHUNK", chunk)
        parts = reference_boxes.max_iou_assign(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("all_ties", [True, False])
def test_1000_objects_need_no_matrix_of_all_overlaps(monkeypatch, all_ties):
    shapes = []
    overlaps = reference_boxes.box_overlaps

    def recorded(boxes, others, *rest):
        shapes.append((len(boxes), len(others)))
        return overlaps(boxes, others, *rest)

    monkeypatch.setattr(reference_boxes, "box_overlaps", recorded)
    corner = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0)) * 1000
    boxes = torch.cat([corner, corner + 20], 1)
    assigned, _ = reference_boxes.max_iou_assign(boxes, boxes[:1000], 0.5, 0.4, 0.0, True, all_ties)
    assert assigned[:1000].tolist() == list(range(1, 1001))
    assert max(n * m for n, m in shapes) <= reference_boxes.CHUNK == 1 << 22
    assert sum(n for n, _ in shapes) == 20_000 * (2 if all_ties else 1)
