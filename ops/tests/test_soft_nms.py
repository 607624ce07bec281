"""Soft suppression against a plain Python loop, and every implementation against the reference."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from op_samples import boxes, native, reference, scattered, scores, serve

import det_ops

METHODS = ("linear", "gaussian", "naive")
INF, NAN = math.inf, math.nan


def in_plain_python(xyxy, ranks, threshold, sigma, min_score, method):
    """Indices in the order picked, and decayed scores, from lists of floats."""
    left = {i: s for i, s in enumerate(ranks) if s >= min_score}
    picked = []
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        picked.append((best, left.pop(best)))
        a1, b1, a2, b2 = xyxy[best]
        for i in list(left):
            x1, y1, x2, y2 = xyxy[i]
            inter = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
            iou = inter / max((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - inter, 1e-6)
            if method == "gaussian":
                left[i] *= math.exp(-iou * iou / sigma)
            elif iou >= threshold:
                left[i] *= 1 - iou if method == "linear" else 0.0
            if left[i] < min_score:
                del left[i]
    return [i for i, _ in picked], [s for _, s in picked]


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [0, 1, 63, 65, 200])
def test_it_does_what_one_would_write_on_paper(server, method, count):
    crowd, ranks = boxes(count, dtype=torch.float64), scores(count, dtype=torch.float64)
    expected, decayed = in_plain_python(crowd.tolist(), ranks.tolist(), 0.3, 0.5, 0.05, method)
    kept, left = serve(server, "soft_nms", crowd, ranks, 0.3, 0.5, 0.05, method)
    assert kept.tolist() == expected
    torch.testing.assert_close(left, torch.tensor(decayed, dtype=torch.float64))


def test_hand_computed_linear_case():
    pair = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60]])
    kept, left = det_ops.soft_nms(pair, torch.tensor([0.9, 0.8, 0.5]), 0.3)
    assert kept.tolist() == [0, 2, 1]
    torch.testing.assert_close(left, torch.tensor([0.9, 0.5, 0.4]))


@pytest.mark.parametrize("method", ["linear", "naive"])
def test_an_iou_equal_to_the_threshold_acts(method):
    pair = torch.tensor([[0.0, 0, 10, 1], [0, 0, 3, 1]])
    kept, left = det_ops.soft_nms(pair, torch.tensor([0.9, 0.8]), 0.3, method=method)
    assert len(kept) == (2 if method == "linear" else 1)
    assert left[-1] < 0.8 or method == "naive"


def test_the_first_of_equal_scores_is_picked_first():
    kept, _ = det_ops.soft_nms(torch.arange(80.0)[:, None] * 10 + torch.tensor([0.0, 0, 1, 1]), torch.ones(80))
    assert kept.tolist() == list(range(80))


def test_scores_below_the_least_and_nan_are_dropped():
    apart = torch.arange(4.0)[:, None] * 10 + torch.tensor([0.0, 0, 1, 1])
    kept, left = det_ops.soft_nms(apart, torch.tensor([NAN, 0.1, 0.01, 0.5]), min_score=0.1)
    assert kept.tolist() == [3, 1]
    assert left.tolist() == pytest.approx([0.5, 0.1])


coordinate = st.one_of(st.integers(-4, 8).map(float), st.sampled_from([NAN, INF, 1e8]))
rows = st.lists(st.tuples(*[coordinate] * 4, st.sampled_from([0.0, 0.5, 1.0, -1.0, NAN, 0.7])), max_size=40)


@settings(max_examples=100, deadline=None)
@given(drawn=rows, method=st.sampled_from(METHODS), threshold=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_native_equals_the_reference_for_hostile_boxes(native_library, drawn, method, threshold):
    table = torch.tensor(drawn, dtype=torch.float64).reshape(-1, 5)
    arguments = (table[:, :4], table[:, 4], threshold, 0.5, 1e-3, method)
    (kept, left), (expected, decayed) = native("soft_nms", *arguments), reference("soft_nms", *arguments)
    assert kept.tolist() == expected.tolist()
    torch.testing.assert_close(left, decayed, equal_nan=True)


@pytest.mark.parametrize("box_dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("score_dtype", [torch.float32, torch.float64, torch.float16])
def test_scores_keep_their_dtype(box_dtype, score_dtype):
    arguments = (boxes(40, dtype=box_dtype), scores(40, dtype=score_dtype), 0.3, 0.5, 0.01, "gaussian")
    (kept, left), (expected, decayed) = native("soft_nms", *arguments), reference("soft_nms", *arguments)
    assert left.dtype == decayed.dtype == score_dtype
    assert kept.tolist() == expected.tolist()
    torch.testing.assert_close(left, decayed)


def test_strides_do_not_matter_and_no_gradient_flows():
    crowd, ranks = boxes(50), scores(50)
    kept, left = det_ops.soft_nms(scattered(crowd), scattered(ranks).requires_grad_())
    expected, decayed = det_ops.soft_nms(crowd, ranks)
    assert torch.equal(kept, expected)
    assert torch.equal(left, decayed)
    assert not left.requires_grad
