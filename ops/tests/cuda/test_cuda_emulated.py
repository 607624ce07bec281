"""The CUDA kernels and bindings against the definition of each operator: emulated on the host, or on a GPU.

Suppression and assignment must agree exactly, everything else up to its precision.
"""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from on_device import CPU_ONLY
from op_samples import (
    CLOSE,
    COMPOSED,
    LAST,
    PLANES,
    arguments,
    assert_close,
    boxes,
    generator,
    maps,
    reference,
    scattered,
)
from torch.utils import _pytree as pytree

from det_ops import dispatch

DTYPES = list(CLOSE)
WITH_CUDA = sorted(set(dispatch.FALLBACKS) - CPU_ONLY - set(COMPOSED))
SIZES = (0, 1, 63, 64, 65, 200, 700)
INF, NAN = math.inf, math.nan
coordinate = st.one_of(st.integers(-4, 8).map(float), st.sampled_from([NAN, INF, -INF, 1e8, -1e8, 0.5]))
score = st.sampled_from([0.0, -0.0, 0.5, 0.5, 1.0, -3.0, INF, -INF, NAN])
rows = st.lists(st.tuples(*[coordinate] * 4, score, st.integers(-1, 2)), max_size=80)


def compare(cuda, name, *given):
    """The result of the CUDA kernel, checked against the definition."""
    found = cuda(name, *given)
    floats = [x.dtype for x in pytree.tree_leaves(given) if isinstance(x, torch.Tensor) and x.is_floating_point()]
    assert_close(found, reference(name, *given), max(CLOSE[dtype] for dtype in floats))
    return found


def on_a_grid(count, dtype=torch.float32, seed=0):
    """(count, 4) boxes with many equal overlaps, some of them without area, inverted or not a number."""
    rng = generator(seed)
    low = torch.randint(0, 60, (count, 2), generator=rng)
    result = torch.cat([low, low + torch.randint(0, 25, (count, 2), generator=rng)], 1).to(dtype)
    if count > 10:
        result[3] = NAN
        result[5, 2] = result[5, 0] - 3
        result[6] = result[7]
    return result


def few_scores(count, dtype=torch.float32):
    """(count,) with many equal ones, and one that is not a number."""
    result = torch.randint(0, 20, (count,), generator=generator(1)).to(dtype)
    result[2:3] = NAN
    return result


def regions(count, dtype=torch.float32, side=60.0, huge=1e8):
    """(count, 5): some on the map of this side in pixels, some outside, huge, inverted, or not a number."""
    rng = generator(3)
    edges = torch.rand(count, 2, 2, generator=rng, dtype=torch.float64) * side * 1.4 - side * 0.2
    low, high = edges.min(1).values, edges.max(1).values
    result = torch.cat([torch.randint(0, 2, (count, 1), generator=rng).double(), low, high], 1)
    odd = [
        [-huge, -huge, huge, huge],
        [5, 5, huge, 20],
        [10, 10, 5, 5],
        [-99, -99, -50, -50],
        [0, 0, side, side],
        [7, 7, 7, 7],
    ]
    result[: len(odd), 1:] = torch.tensor(odd, dtype=torch.float64)
    return result.to(dtype)


@pytest.mark.parametrize("layout", [PLANES, LAST])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WITH_CUDA)
def test_every_operator_agrees_with_its_definition_and_leaves_its_inputs_alone(cuda, name, dtype, layout):
    given = arguments(name, dtype, layout)
    tensors = [x for x in pytree.tree_leaves(given) if isinstance(x, torch.Tensor)]
    before = [x.clone() for x in tensors]
    found = pytree.tree_leaves(compare(cuda, name, *given))
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    memory = {x.untyped_storage().data_ptr() for x in tensors}
    assert not any(x.numel() and x.untyped_storage().data_ptr() in memory for x in found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WITH_CUDA)
def test_strides_make_no_difference(cuda, name, dtype):
    given = arguments(name, dtype)
    spread = pytree.tree_map(lambda x: scattered(x) if isinstance(x, torch.Tensor) and x.dim() else x, given)
    expected = reference(name, *given)
    for ours, theirs in zip(pytree.tree_leaves(cuda(name, *spread)), pytree.tree_leaves(expected), strict=True):
        assert_close(ours.contiguous(), theirs.contiguous(), CLOSE[dtype])


# Boxes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("count", SIZES)
def test_suppression_is_exact(cuda, count, dtype):
    given, ranks = on_a_grid(count, dtype), few_scores(count, dtype)
    for threshold in (0.3, 1 / 3, 0.5):
        for offset in (0, 1):
            compare(cuda, "nms", given, ranks, threshold, offset)


@pytest.mark.parametrize("groups", [1, 5, 500])
@pytest.mark.parametrize("count", SIZES)
def test_suppression_in_groups_is_exact(cuda, count, groups):
    given, ranks = on_a_grid(count), few_scores(count)
    of = torch.randint(-groups, groups, (count,), generator=generator(2))
    compare(cuda, "batched_nms", given, ranks, of, 0.4)
    for max_out in (0, 1, 50, 1100):
        compare(cuda, "nms_padded", given, ranks, of, 0.4, max_out)


def test_more_indices_than_a_block_writes_at_a_time(cuda):
    given, ranks = on_a_grid(2500), few_scores(2500)
    groups = torch.randint(0, 400, (2500,), generator=generator(2))
    for max_out in (1000, 1500, 2500):
        compare(cuda, "nms_padded", given, ranks, groups, 0.4, max_out)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=rows, threshold=st.sampled_from([0.0, 0.25, 1 / 3, 0.6, 1.0]))
def test_suppression_of_hostile_boxes_is_exact(cuda, drawn, threshold):
    table = torch.tensor(drawn).reshape(-1, 6)
    given, ranks, groups = table[:, :4].contiguous(), table[:, 4].contiguous(), table[:, 5].long()
    compare(cuda, "nms", given, ranks, threshold, 0)
    compare(cuda, "batched_nms", given, ranks, groups, threshold)


@pytest.mark.parametrize("method", ["linear", "gaussian", "naive"])
@pytest.mark.parametrize("dtypes", [(a, b) for a in (torch.float32, torch.float64) for b in DTYPES[:2]])
@pytest.mark.parametrize("count", [0, 1, 64, 150])
def test_soft_suppression(cuda, count, dtypes, method):
    ranks = torch.rand(count, generator=generator(1)).to(dtypes[1])
    ranks[1::5] = ranks[::5][: len(ranks[1::5])]  # ties
    compare(cuda, "soft_nms", on_a_grid(count, dtypes[0]), ranks, 0.3, 0.5, 0.05, method)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("mode", ["iou", "iof", "giou"])
def test_overlaps_are_exact(cuda, mode, offset):
    for dtype in DTYPES:
        ours, others = on_a_grid(70, dtype), on_a_grid(33, dtype, 1)
        for pair, aligned in (((ours, others), False), ((ours[:33], others), True)):
            expected = reference("box_overlaps", *pair, mode, aligned, offset)
            found = cuda("box_overlaps", *pair, mode, aligned, offset)
            torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("all_ties", [False, True])
@pytest.mark.parametrize("count", [0, 1, 64, 300])
def test_assignment_is_exact(cuda, count, all_ties):
    for objects in (0, 1, 7, 300):  # more objects than one block holds at a time
        for dtype in (torch.float32, torch.float64):
            for low_quality, least in ((False, 0.0), (True, 0.0), (True, 0.3)):
                pair, how = (
                    (on_a_grid(count, dtype), on_a_grid(objects, dtype, 1)),
                    (0.5, 0.4, least, low_quality, all_ties),
                )
                expected = reference("max_iou_assign", *pair, *how)
                for ours, theirs in zip(cuda("max_iou_assign", *pair, *how), expected, strict=True):
                    assert torch.equal(ours, theirs)


# Masks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["sampled", "resized", "quantised"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pasted_masks_are_exact(cuda, dtype, rule):
    edges = regions(60, dtype, huge=1e4 if dtype is torch.float16 else 1e8)[:, 1:].contiguous()
    edges[7, 2], edges[8, 0], edges[9, 1] = NAN, -INF, INF
    mirrored = torch.arange(60) % 3 == 0
    for side in (1, 7):
        masks = maps(60, side, side, dtype=dtype).sigmoid()
        for threshold in (0.0, 0.5):
            compare(cuda, "paste_masks", masks, edges, mirrored, 50, 60, threshold, rule)
    compare(cuda, "paste_masks", masks[:0], edges[:0], None, 50, 60, 0.5, rule)
    compare(cuda, "paste_masks", masks.double(), edges, None, 50, 60, 0.5, rule)


# Pooling -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [0, 2, 20])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("alignment", ["aligned", "unaligned", "v1"])
@pytest.mark.parametrize("channels", [1, 3, 17, 32])
def test_roi_align_of_two_levels_and_its_gradient(cuda, channels, alignment, mode, sampling):
    levels = torch.arange(12) % 2
    # Of many samples the sums in float32 differ by more than a few ulps, on both sides.
    for dtype in (
        DTYPES if channels in (3, 32) and sampling == 0 else [torch.float64 if sampling > 2 else torch.float32]
    ):
        features = [maps(2, channels, 13, 17, dtype=dtype), maps(2, channels, 7, 9, dtype=dtype, seed=5)]
        where = regions(12, torch.float64 if dtype == torch.float64 else torch.float32)
        how = [0.25, 0.125], sampling, alignment, mode
        pooled = compare(cuda, "roi_align", features, where, levels, [3, 4], *how)
        sides = [side for level in features for side in level.shape]
        grad = maps(*pooled.shape, dtype=dtype, seed=6)
        compare(cuda, "roi_align_backward", grad, features, where, levels, sides, *how, False)


def test_roi_align_with_more_bins_than_a_block_holds_at_a_time(cuda):
    features, where = [maps(2, 5, 20, 30)], regions(8)
    pooled = compare(cuda, "roi_align", features, where, torch.zeros(8).long(), [18, 35], [0.5], 0, "aligned", "avg")
    grad = maps(*pooled.shape, seed=6)
    compare(
        cuda,
        "roi_align_backward",
        grad,
        [],
        where,
        torch.zeros(8).long(),
        [2, 5, 20, 30],
        [0.5],
        0,
        "aligned",
        "avg",
        True,
    )


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_regions_of_no_image_or_level_pool_zeros_and_give_no_gradient(cuda, mode):
    features, where = [maps(2, 4, 8, 8), maps(2, 4, 4, 4)], torch.tensor([[0.0, 0, 0, 6, 6]]).repeat(6, 1)
    where[:4, 0] = torch.tensor([-1.0, 2.0, NAN, 1e9])
    levels = torch.tensor([0, 0, 0, 0, -1, 2])
    pooled = cuda("roi_align", features, where, levels, [2, 2], [1.0, 0.5], 0, "aligned", mode)
    assert not pooled.any()
    sides = [2, 4, 8, 8, 2, 4, 4, 4]
    for grad in cuda(
        "roi_align_backward", pooled + 1, features, where, levels, sides, [1.0, 0.5], 0, "aligned", mode, False
    ):
        assert not grad.any()
    assert not cuda("roi_pool", features[0], where[:4], [2, 2], 1.0)[0].any()
    assert not cuda("deform_roi_pool", features[0], where[:4], None, [2, 2], 1.0, 0, 0.1).any()
    assert not cuda("deform_psroi_pool", features[0], where[:4], None, [2, 2], 1.0, 4, 1, 2, 4, 0.1).any()


def test_the_gradient_of_roi_align_counts_more_regions_than_a_block_tests_at_a_time(cuda):
    where = regions(700, torch.float64, 40.0, 300.0)
    levels, grad = torch.zeros(700).long(), maps(700, 2, 2, 2, dtype=torch.float64)
    where[100:300, 0], where[300:400, 1:] = 1, where[300:400, 1:] / 4  # so that chunks of them differ
    how = [2, 2, 20, 20], [0.5], 0, "aligned", "avg", False
    compare(cuda, "roi_align_backward", grad, [], where, levels, *how)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 17])
def test_roi_pool_is_exact(cuda, channels, dtype):
    features, where = maps(2, channels, 13, 17, dtype=dtype), regions(12)
    features[0, 0, 3:6, 3:6] = features[0, 0, 4, 4]  # ties
    features[1, 0, 5, 5] = NAN
    for ours, theirs in zip(
        cuda("roi_pool", features, where, [3, 4], 0.25),
        reference("roi_pool", features, where, [3, 4], 0.25),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("sampling", [0, 2])
@pytest.mark.parametrize("channels", [1, 40])
def test_deformable_pooling(cuda, channels, sampling, offset):
    for dtype in DTYPES:
        features = maps(2, channels, 9, 11, dtype=dtype)
        where = regions(9, torch.float64 if dtype == torch.float64 else torch.float32, 40.0, 300.0)
        shift = maps(9, 2, 3, 4, dtype=dtype, seed=4) * 2 if offset else None
        pooled = compare(cuda, "deform_roi_pool", features, where, shift, [3, 4], 0.25, sampling, 0.1)
        grad = maps(*pooled.shape, dtype=dtype, seed=6)
        compare(cuda, "deform_roi_pool_backward", grad, features, where, shift, 0.25, sampling, 0.1)


def test_deformable_pooling_of_a_huge_region_is_bounded(cuda):
    where, ones = torch.tensor([[0.0, -1e8, -1e8, 1e8, 1e8]]), torch.ones(1, 1, 6, 6)
    pooled = cuda("deform_roi_pool", ones, where, None, [2, 2], 1.0, 0, 0.1)
    assert 0 < float(pooled.max()) < 1e-12


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize(("channels", "group", "part", "classes"), [(1, 1, 2, 1), (4, 2, 3, 2), (6, 3, 4, 3)])
def test_position_sensitive_pooling(cuda, channels, group, part, classes, offset):
    for dtype in DTYPES:
        features = maps(2, channels * group**2, 9, 11, dtype=dtype)
        where = regions(9, torch.float64 if dtype == torch.float64 else torch.float32, 40.0)
        shift = maps(9, 2 * classes, part, part, dtype=dtype, seed=4) * 2 if offset else None
        bins = group, part, 4, 0.1
        pooled = compare(cuda, "deform_psroi_pool", features, where, shift, [3, 4], 0.25, channels, *bins)
        grad = maps(*pooled.shape, dtype=dtype, seed=6)
        compare(cuda, "deform_psroi_pool_backward", grad, features, where, shift, 0.25, *bins)


# Convolution ---------------------------------------------------------------------------------------------------------

# images, channels, out channels, kernel, stride, padding, dilation, groups, offset groups, mask, bias
CONVOLUTIONS = [
    (1, 4, 5, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, False, False),
    (2, 6, 70, (3, 2), (2, 1), (1, 2), (1, 2), 1, 3, True, True),
    (2, 48, 8, (1, 3), (1, 1), (0, 1), (1, 1), 2, 1, True, False),
    (1, 72, 24, (3, 3), (1, 1), (2, 2), (2, 2), 3, 2, True, True),
    (2, 130, 3, (2, 2), (1, 1), (0, 0), (1, 1), 1, 1, False, True),
    (2, 17, 3, (2, 2), (1, 1), (0, 0), (1, 1), 1, 17, False, True),
    (0, 4, 5, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, True, True),
]


def convolution(case, dtype, layout):
    """The arguments of a deformable convolution; some taps lie on whole pixels, some far away."""
    images, channels, out, kernel, stride, padding, dilation, groups, offset_groups, mask, bias = case
    x = maps(images, channels, 7, 6, dtype=dtype, layout=layout)
    sides = (7, 6)
    size = [(sides[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    taps = offset_groups * kernel[0] * kernel[1]
    offset = maps(images, 2 * taps, *size, dtype=dtype, seed=3) * 1.5
    offset[:, ::3] = offset[:, ::3].round()
    offset[:, 0, 0, 0] = 1e4
    return (
        *(x, offset, maps(out, channels // groups, *kernel, dtype=dtype, seed=4) / 5),
        maps(images, taps, *size, dtype=dtype, seed=5).sigmoid() if mask else None,
        maps(out, dtype=dtype, seed=6) if bias else None,
        *(list(stride), list(padding), list(dilation), groups, offset_groups),
    )


@pytest.mark.parametrize("layout", [PLANES, LAST])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_deformable_convolution_and_its_gradients(cuda, case, layout):
    for dtype in DTYPES:
        given = convolution(case, dtype, layout)
        result = compare(cuda, "deform_conv2d", *given)
        grad = maps(*result.shape, dtype=dtype, seed=7)
        compare(cuda, "deform_conv2d_backward", grad, *given[:4], *given[5:])


@pytest.mark.parametrize(("at", "slope"), [(-1.0, 0.0), (4.0, 0.0), (-0.5, 1.0), (NAN, 0.0), (INF, 0.0), (1e30, 0.0)])
def test_a_tap_on_the_line_around_the_image_moves_nothing(cuda, at, slope):
    x, weight, grad = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 4, 4)
    offset = torch.zeros(1, 2, 4, 4)
    offset[0, 0, 0, 2], grad[0, 0, 0, 2] = at, 1.0
    found = cuda("deform_conv2d_backward", grad, x, offset, weight, None, [1, 1], [0, 0], [1, 1], 1, 1)[1]
    assert found[0, 0, 0, 2] == slope
    assert float(found.abs().sum()) == abs(slope)


def test_the_gradient_of_a_weight_from_several_parts_of_the_pixels(cuda):
    case = (1, 3, 2, (1, 1), (1, 1), (0, 0), (1, 1), 1, 1, True, False)
    _, _, weight, *rest = convolution(case, torch.float64, PLANES)
    wide = maps(1, 3, 50, 70, dtype=torch.float64)
    offset, mask = maps(1, 2, 50, 70, dtype=torch.float64, seed=3), maps(1, 1, 50, 70, dtype=torch.float64, seed=5)
    grad = maps(1, 2, 50, 70, dtype=torch.float64, seed=7)
    compare(cuda, "deform_conv2d_backward", grad, wide, offset, weight, mask, *rest[2:])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("channels", [0, 3, 40])
def test_masked_convolution(cuda, channels, bias):
    mixed = torch.randint(-1, 2, (2, 9, 10), generator=generator())
    for dtype in DTYPES:
        x, weight = maps(2, channels, 9, 10, dtype=dtype), maps(70, channels, 3, 3, dtype=dtype, seed=4)
        added = maps(70, dtype=dtype, seed=6) if bias else None
        for mask in (mixed, mixed > 5, mixed > -5, mixed.to(dtype) / 3):
            compare(cuda, "masked_conv2d", x, mask, weight, added, [1, 1])


# Loss ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 1.5])
@pytest.mark.parametrize(("count", "classes"), [(0, 3), (5, 0), (1, 1), (300, 17)])
def test_focal_loss_and_its_gradient(cuda, count, classes, gamma):
    target = torch.randint(-1, classes + 1, (count,), generator=generator())
    for dtype in DTYPES:
        # Beyond 20 the softplus of torch leaves out what ours keeps, 2e-9 of it.
        logits = (maps(count, classes, dtype=dtype) * 8).clamp(-18, 18)
        for weight in (None, maps(classes, seed=5).sigmoid()):
            how = logits, target, weight, gamma, 0.25
            each = compare(cuda, "sigmoid_focal_loss", *how, False)
            total = compare(cuda, "sigmoid_focal_loss", *how, True)
            for grad in (torch.full_like(total, 0.7), maps(*each.shape, dtype=each.dtype, seed=6)):
                compare(cuda, "sigmoid_focal_loss_backward", grad, *how)


def test_focal_loss_of_extreme_logits(cuda):
    logits, target = torch.tensor([[-200.0, 200.0], [200.0, -200.0]]), torch.tensor([0, 0])
    loss = cuda("sigmoid_focal_loss", logits, target, None, 2.0, 0.25, False)
    torch.testing.assert_close(loss, torch.tensor([[50.0, 150.0], [0.0, 0.0]]))
    grad = cuda("sigmoid_focal_loss_backward", torch.ones(()), logits, target, None, 2.0, 0.25)
    torch.testing.assert_close(grad, torch.tensor([[-0.25, 0.75], [0.0, 0.0]]))


def test_an_ignored_row_counts_nothing(cuda):
    logits = boxes(3)
    assert not cuda("sigmoid_focal_loss", logits, torch.full((3,), -1), None, 2.0, 0.25, False).any()
    assert not cuda("sigmoid_focal_loss_backward", torch.ones(()), logits, torch.full((3,), -7), None, 2.0, 0.25).any()


def test_wrong_arguments_are_refused(cuda):
    x, where, levels = maps(1, 2, 4, 4), regions(6), torch.zeros(6).long()
    with pytest.raises(RuntimeError, match="expected avg or max"):
        cuda("roi_align", [x], where, levels, [2, 2], [1.0], 0, "aligned", "mean")
    with pytest.raises(RuntimeError, match="more than 8 levels"):
        cuda("roi_align", [x] * 9, where, levels, [2, 2], [1.0] * 9, 0, "aligned", "avg")
    with pytest.raises(RuntimeError, match="float32, float64, float16 or bfloat16"):
        cuda("roi_align", [x.int()], where, levels, [2, 2], [1.0], 0, "aligned", "avg")
