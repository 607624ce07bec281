"""The operators against hand-computed cases, the reference, and torchvision."""

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

import det_ops
from det_ops import dispatch, reference


@pytest.fixture(params=["torchvision", "reference"])
def server(request, monkeypatch):
    """Each test runs with torchvision serving, and without."""
    if request.param == "reference":
        monkeypatch.setattr(dispatch, "_torchvision", lambda: None)
    return request.param


def test_nms_keeps_the_best_and_what_does_not_overlap(server):
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    assert det_ops.nms(boxes, torch.tensor([0.8, 0.9, 0.1]), 0.5).tolist() == [1, 2]


@pytest.mark.parametrize("threshold", [0.3, 1 / 3, 0.5, 0.6])
def test_an_iou_equal_to_the_threshold_does_not_suppress(server, threshold):
    share = {0.3: 3, 1 / 3: None, 0.5: 5, 0.6: 6}[threshold]
    second = [0.0, 0, 1, 1] if share is None else [0.0, 0, share, 1]
    first = [0.0, 0, 3, 1] if share is None else [0.0, 0, 10, 1]
    boxes = torch.tensor([first, second])
    assert det_ops.nms(boxes, torch.tensor([0.9, 0.8]), threshold).tolist() == [0, 1]


def test_equal_scores_keep_the_lower_index(server):
    boxes = torch.tensor([[0.0, 0, 4, 4]]).repeat(40, 1)
    assert det_ops.nms(boxes, torch.ones(40), 0.5).tolist() == [0]


def test_two_identical_boxes_of_no_area_both_stay(server):
    assert det_ops.nms(torch.ones(2, 4), torch.tensor([0.5, 0.9]), 0.5).tolist() == [1, 0]


def test_offset_adds_a_pixel():
    boxes = torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 0]])
    assert det_ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5, offset=1).tolist() == [1]


def test_batched_nms_is_nms_inside_each_group_whatever_the_coordinates(server):
    rng = torch.Generator().manual_seed(0)
    corner = torch.rand(200, 2, generator=rng) * 400 - 200  # negative ones break the coordinate-offset trick
    boxes = torch.cat([corner, corner + 1 + torch.rand(200, 2, generator=rng) * 60], 1)
    scores, groups = torch.rand(200, generator=rng), torch.randint(0, 5, (200,), generator=rng)
    expected = []
    for group in range(5):
        member = (groups == group).nonzero().flatten()
        expected += member[det_ops.nms(boxes[member], scores[member], 0.4)].tolist()
    kept = det_ops.batched_nms(boxes, scores, groups, 0.4)
    assert sorted(expected) == sorted(kept.tolist())
    assert scores[kept].tolist() == sorted(scores[kept].tolist(), reverse=True)


def test_no_boxes_keep_nothing(server):
    empty = torch.zeros(0, 4)
    assert det_ops.nms(empty, torch.zeros(0), 0.5).tolist() == []
    assert det_ops.batched_nms(empty, torch.zeros(0), torch.zeros(0, dtype=torch.long), 0.5).tolist() == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-4, 8)] * 4, st.integers(0, 3)), max_size=24), st.sampled_from([0.3, 0.5, 0.7]))
def test_nms_reference_equals_torchvision_on_integer_grids(rows, threshold):
    boxes = torch.tensor([r[:4] for r in rows], dtype=torch.float32).reshape(-1, 4)
    scores = torch.tensor([r[4] for r in rows], dtype=torch.float32)
    assert det_ops.nms(boxes, scores, threshold).tolist() == reference.nms(boxes, scores, threshold).tolist()


ROIS = torch.tensor([[0.0, 1.3, 2.1, 17.9, 9.4], [1, -6.0, -3.0, 4.0, 40.0], [0, 5, 5, 5, 5], [1, 9, 9, 3, 2]])


@pytest.mark.parametrize("sampling", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_reference_equals_torchvision_with_gradient(sampling, aligned):
    x = torch.randn(2, 3, 9, 13, dtype=torch.float64, requires_grad=True)
    ours = reference.roi_align(x, ROIS, (3, 4), 0.5, sampling, aligned, "avg")
    peer = torchvision.ops.roi_align(x, ROIS.double(), (3, 4), 0.5, sampling or -1, aligned)
    torch.testing.assert_close(ours, peer)
    weight = torch.randn_like(ours)
    torch.testing.assert_close(torch.autograd.grad(ours, x, weight)[0], torch.autograd.grad(peer, x, weight)[0])


def test_roi_align_of_a_constant_is_that_constant(server):
    x = torch.full((1, 2, 8, 8), 3.0)
    out = det_ops.roi_align(x, torch.tensor([[0.0, 4, 4, 24, 20]]), (2, 2), 0.25)
    torch.testing.assert_close(out, torch.full((1, 2, 2, 2), 3.0))


def test_roi_align_max_takes_the_largest_sample():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    out = det_ops.roi_align(x, torch.tensor([[0.0, 0.5, 0.5, 2.5, 2.5]]), (1, 1), 1.0, sampling=2, mode="max")
    assert out.item() == pytest.approx(1.5 * 4 + 1.5)  # samples at 0.5 and 1.5 on both axes


def test_no_regions_pool_to_nothing_and_keep_the_gradient_path(server):
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    out = det_ops.roi_align(x, torch.zeros(0, 5), (2, 2), 1.0)
    assert out.shape == (0, 2, 2, 2)
    out.sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: det_ops.nms(torch.zeros(3), torch.zeros(3), 0.5), r"boxes have shape \(3,\), expected \(N, 4\)"),
        (lambda: det_ops.nms(torch.zeros(3, 4), torch.zeros(2), 0.5), r"scores have shape \(2,\), expected \(3,\)"),
        (
            lambda: det_ops.batched_nms(torch.zeros(1, 4), torch.zeros(1), torch.zeros(2), 0.5),
            r"groups have shape \(2,\)",
        ),
        (lambda: det_ops.roi_align(torch.zeros(3, 4, 4), ROIS, (2, 2), 1.0), r"expected \(B, C, H, W\)"),
        (lambda: det_ops.roi_align(torch.zeros(2, 1, 4, 4), ROIS[:, :4], (2, 2), 1.0), r"expected \(K, 5\)"),
        (lambda: det_ops.roi_align(torch.zeros(2, 1, 4, 4), ROIS, (0, 2), 1.0), "must be positive"),
        (lambda: det_ops.roi_align(torch.zeros(1, 1, 4, 4), ROIS, (2, 2), 1.0), r"image outside 0\.\.0"),
    ],
)
def test_wrong_arguments_are_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_status_names_who_serves(server):
    rows = det_ops.status()
    assert {r.name for r in rows} == {"nms", "batched_nms", "roi_align"}
    assert all(server in r.served_by for r in rows)
    assert all(bool(r.remedy) == (server == "reference") for r in rows)
