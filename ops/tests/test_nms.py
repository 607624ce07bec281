"""Suppression of boxes: hand-computed cases, every implementation against the definition, and hostile inputs."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from op_samples import SERVERS, boxes, generator, native, reference, scattered, scores, serve

import det_ops

torchvision = pytest.importorskip("torchvision", reason="the results of torchvision are compared with ours")
SIZES = (0, 1, 63, 64, 65, 1000)
INF, NAN = math.inf, math.nan
coordinate = st.one_of(st.integers(-4, 8).map(float), st.sampled_from([NAN, INF, -INF, 1e8, -1e8, 0.5]))
score = st.sampled_from([0.0, -0.0, 0.5, 0.5, 1.0, -3.0, INF, -INF, NAN])
rows = st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate, score, st.integers(-1, 2)), max_size=70)
on_a_grid = st.lists(st.tuples(*[st.integers(-4, 8)] * 4, st.integers(0, 3), st.integers(0, 2)), max_size=70)
thresholds = st.sampled_from([0.0, 0.25, 0.3, 1 / 3, 0.5, 0.6, 0.7, 1.0])


def unpacked(drawn, dtype=torch.float32):
    table = torch.tensor(drawn, dtype=dtype).reshape(-1, 6)
    return table[:, :4].contiguous(), table[:, 4].contiguous(), table[:, 5].long()


def in_plain_python(xyxy, ranks, threshold, offset=0):
    """Greedy suppression as one would write it on paper, in double precision."""
    order = torch.sort(ranks, descending=True, stable=True).indices.tolist()
    kept = []
    for i in order:
        x1, y1, x2, y2 = xyxy[i].tolist()
        for j in kept:
            a1, b1, a2, b2 = xyxy[j].tolist()
            inter = max(0, min(x2, a2) - max(x1, a1) + offset) * max(0, min(y2, b2) - max(y1, b1) + offset)
            union = (x2 - x1 + offset) * (y2 - y1 + offset) + (a2 - a1 + offset) * (b2 - b1 + offset) - inter
            if union != 0 and inter / union > threshold:
                break
        else:
            kept.append(i)
    return kept


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("threshold", [0.3, 1 / 3, 0.5, 0.6])
def test_an_iou_equal_to_the_threshold_does_not_suppress(server, threshold):
    width = {0.3: (3, 10), 1 / 3: (1, 3), 0.5: (5, 10), 0.6: (6, 10)}[threshold]
    pair = torch.tensor([[0.0, 0, width[1], 1], [0, 0, width[0], 1]])
    assert serve(server, "nms", pair, torch.tensor([0.9, 0.8]), threshold, 0).tolist() == [0, 1]
    assert serve(server, "nms", pair, torch.tensor([0.9, 0.8]), threshold - 1e-4, 0).tolist() == [0]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("count", [40, 300])
def test_equal_scores_keep_the_lower_index(server, count):
    same = torch.tensor([[0.0, 0, 4, 4]]).expand(count, 4)
    assert serve(server, "nms", same, torch.ones(count), 0.5, 0).tolist() == [0]


@pytest.mark.parametrize("server", SERVERS)
def test_two_identical_boxes_of_no_area_both_stay(server):
    assert serve(server, "nms", torch.ones(2, 4), torch.tensor([0.5, 0.9]), 0.5, 0).tolist() == [1, 0]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("filler", [0, 400])
def test_a_nan_score_comes_first_and_both_zeros_are_equal(server, filler):
    ranks = torch.cat([torch.tensor([0.0, -0.0, NAN, INF, -0.0]), torch.full((filler,), -1.0)])
    apart = torch.arange(5.0 + filler)[:, None] * 10 + torch.tensor([0.0, 0, 1, 1])
    assert serve(server, "nms", apart, ranks, 0.5, 0)[:5].tolist() == [2, 3, 0, 1, 4]


@pytest.mark.parametrize("server", SERVERS)
def test_offset_adds_a_pixel(server):
    assert serve(server, "nms", torch.zeros(2, 4), torch.tensor([0.5, 0.9]), 0.5, 1).tolist() == [1]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_it_does_what_one_would_write_on_paper(server, threshold, offset):
    crowd, ranks = boxes(150, side=12, dtype=torch.float64).round(), scores(150, dtype=torch.float64)
    expected = in_plain_python(crowd, ranks, threshold, offset)
    assert 0 < len(expected) < 150
    assert serve(server, "nms", crowd, ranks, threshold, offset).tolist() == expected


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_native_equals_the_reference_at_every_size(native_library, count, dtype):
    crowd, ranks = boxes(count, dtype=dtype), scores(count, dtype=dtype)
    assert torch.equal(native("nms", crowd, ranks, 0.4, 0), reference("nms", crowd, ranks, 0.4, 0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_boxes_are_computed_in_full(dtype):
    crowd, ranks = boxes(300, side=1000, dtype=dtype), scores(300)
    assert torch.equal(det_ops.nms(crowd, ranks, 0.4), det_ops.nms(crowd.float(), ranks, 0.4))


@pytest.mark.parametrize("server", SERVERS)
@settings(max_examples=60, deadline=None)
@given(drawn=on_a_grid, threshold=thresholds)
def test_all_equal_torchvision_on_integer_grids(server, drawn, threshold):
    crowd, ranks, _ = unpacked(drawn)
    order = torch.sort(ranks, descending=True, stable=True).indices
    distinct = torch.empty_like(ranks)
    distinct[order] = torch.arange(len(order), 0, -1.0)
    peer = torchvision.ops.nms(crowd, distinct, float(torch.tensor(threshold)))
    assert serve(server, "nms", crowd, ranks, threshold, 0).tolist() == peer.tolist()


@settings(max_examples=150, deadline=None)
@given(drawn=rows, threshold=thresholds, offset=st.integers(0, 1), wide=st.booleans())
def test_native_equals_the_reference_for_hostile_boxes(native_library, drawn, threshold, offset, wide):
    crowd, ranks, groups = unpacked(drawn, torch.float64 if wide else torch.float32)
    assert torch.equal(
        native("nms", crowd, ranks, threshold, offset), reference("nms", crowd, ranks, threshold, offset)
    )
    given_groups = (crowd, ranks, groups, threshold)
    assert torch.equal(native("batched_nms", *given_groups), reference("batched_nms", *given_groups))


@settings(max_examples=50, deadline=None)
@given(drawn=rows, threshold=thresholds)
def test_what_torchvision_serves_equals_the_reference_for_hostile_boxes(drawn, threshold):
    crowd, ranks, groups = unpacked(drawn)
    for name, arguments in (("nms", (threshold, 0)), ("batched_nms", (groups, threshold))):
        assert torch.equal(
            serve("torchvision", name, crowd, ranks, *arguments), reference(name, crowd, ranks, *arguments)
        )


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("ids", [(0, 1, 2), (-(10**12), -1, 10**12), (-(2**63), 0, 2**63 - 1), (7,)])
def test_batched_nms_is_nms_inside_each_group(server, count, ids):
    crowd, ranks = boxes(count), (scores(count) * 20).round() / 20  # many equal scores
    groups = torch.tensor(ids)[torch.randint(0, len(ids), (count,), generator=generator())]
    expected = []
    for group in ids:
        member = (groups == group).nonzero().flatten()
        expected += member[det_ops.nms(crowd[member], ranks[member], 0.4)].tolist()
    expected.sort(key=lambda i: (-float(ranks[i]), i))
    assert serve(server, "batched_nms", crowd, ranks, groups, 0.4).tolist() == expected


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("max_out", [0, 1, 10, 500])
def test_nms_padded_is_batched_nms_of_fixed_size(server, max_out):
    crowd, ranks, groups = boxes(200), scores(200), torch.arange(200) % 3
    kept = det_ops.batched_nms(crowd, ranks, groups, 0.2)
    assert 10 < len(kept) < 200
    padded, count = serve(server, "nms_padded", crowd, ranks, groups, 0.2, max_out)
    assert padded.shape == (max_out,)
    assert int(count) == min(max_out, len(kept))
    assert padded[: int(count)].tolist() == kept[:max_out].tolist()
    assert (padded[int(count) :] == -1).all()


def test_a_score_threshold_leaves_out_boxes_beforehand_and_max_num_cuts_afterwards():
    crowd, ranks = boxes(100), scores(100)
    known = (ranks > 0.5).nonzero().flatten()
    expected = known[det_ops.nms(crowd[known], ranks[known], 0.4)]
    assert det_ops.nms(crowd, ranks, 0.4, score_threshold=0.5).tolist() == expected.tolist()
    assert det_ops.nms(crowd, ranks, 0.4, score_threshold=0.5, max_num=3).tolist() == expected[:3].tolist()
    assert det_ops.nms(crowd, ranks, 0.4, score_threshold=2.0).tolist() == []
    assert det_ops.nms(crowd, ranks, 0.4, max_num=0).tolist() == []


def test_strides_do_not_matter():
    crowd, ranks, groups = boxes(90), scores(90), torch.arange(90) % 4
    spread = [scattered(x) for x in (crowd, ranks, groups)]
    assert not spread[0].is_contiguous()
    assert torch.equal(det_ops.batched_nms(*spread, 0.4), det_ops.batched_nms(crowd, ranks, groups, 0.4))
    assert torch.equal(det_ops.nms(crowd.t().contiguous().t(), ranks, 0.4), det_ops.nms(crowd, ranks, 0.4))


def test_groups_of_any_integer_type_are_taken():
    crowd, ranks, groups = boxes(90), scores(90), torch.arange(90) % 4
    expected = det_ops.batched_nms(crowd, ranks, groups, 0.4)
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(det_ops.batched_nms(crowd, ranks, groups.to(dtype), 0.4), expected)
    halves = det_ops.batched_nms(crowd, ranks, groups > 1, 0.4)
    assert torch.equal(halves, det_ops.batched_nms(crowd, ranks, (groups > 1).long(), 0.4))


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("images", [0, 1, 3])
def test_each_image_of_a_batch_gives_what_it_gives_alone(server, images):
    crowd = boxes(200 * images).reshape(images, 200, 4)
    ranks, groups = scores(200 * images).reshape(images, 200), torch.arange(200).expand(images, -1) % 3
    kept, counts = serve(server, "nms_images", crowd, ranks, groups, 0.4, 30)
    assert kept.shape == (images, 30)
    assert counts.shape == (images,)
    for row in range(images):
        alone, count = serve(server, "nms_padded", crowd[row], ranks[row], groups[row], 0.4, 30)
        assert torch.equal(kept[row], alone)
        assert int(counts[row]) == int(count)


def test_the_batch_size_of_an_exported_graph_is_free():
    class Suppress(torch.nn.Module):
        def forward(self, crowd, ranks, groups):
            return det_ops.nms_images(crowd, ranks, groups, 0.4, 30)

    def inputs(images):
        count = 50 * images
        given = boxes(count).reshape(-1, 50, 4), scores(count).reshape(-1, 50)
        return *given, torch.zeros(images, 50, dtype=torch.int64)

    free = {0: torch.export.Dim("images")}
    program = torch.export.export(Suppress(), inputs(2), dynamic_shapes=(free, free, free))
    for images in (1, 5):
        for ours, theirs in zip(program.module()(*inputs(images)), Suppress()(*inputs(images)), strict=True):
            assert torch.equal(ours, theirs)
