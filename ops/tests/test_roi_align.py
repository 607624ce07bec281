"""RoIAlign: every implementation against plain Python, torchvision and each other, and hostile regions."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from op_samples import (
    CLOSE,
    LAST,
    PLANES,
    SERVERS,
    ElementCount,
    assert_close,
    maps,
    native,
    reference,
    rois,
    scattered,
    serve,
)

import det_ops

torchvision = pytest.importorskip("torchvision", reason="the results of torchvision are compared with ours")
INF, NAN = math.inf, math.nan
ALIGNMENTS, MODES = ("aligned", "unaligned", "v1"), ("avg", "max")
# Partly outside, outside on each side, without extent, turned inside out on both axes and on one, and tiny.
ODD = torch.tensor(
    [
        [1.0, -6.0, -3.0, 4.0, 40.0],
        [0, -90, 0, -60, 10],
        [0, 0, 300, 10, 400],
        [0, 5, 5, 5, 5],
        [1, 9, 9, 3, 2],
        [1, 9, 2, 3, 8],
        [0, 4.2, 4.2, 4.3, 4.4],
        [1, 0, 0, 30, 22],
    ]
)


def sampled(plane, y, x):
    """One bilinear sample of a plane given as rows of floats."""
    height, width = len(plane), len(plane[0])
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = max(y, 0.0), max(x, 0.0)
    low_y, low_x = min(int(y), height - 1), min(int(x), width - 1)
    high_y, high_x = min(low_y + 1, height - 1), min(low_x + 1, width - 1)
    fy, fx = (y - low_y if low_y < height - 1 else 0.0), (x - low_x if low_x < width - 1 else 0.0)
    top = plane[low_y][low_x] * (1 - fx) + plane[low_y][high_x] * fx
    bottom = plane[high_y][low_x] * (1 - fx) + plane[high_y][high_x] * fx
    return top * (1 - fy) + bottom * fy


def in_plain_python(features, regions, size, scale, sampling, alignment, mode):
    shift, extra = 0.5 if alignment == "aligned" else 0.0, 1 if alignment == "v1" else 0
    out = torch.zeros(len(regions), features.shape[1], *size, dtype=torch.float64)
    for k, (image, x1, y1, x2, y2) in enumerate(regions.tolist()):
        starts, steps, grid = [], [], []
        for low, high, bins in ((y1, y2, size[0]), (x1, x2, size[1])):
            starts.append(low * scale - shift)
            extent = (high + extra) * scale - shift - starts[-1]
            if alignment != "aligned":
                extent = max(extent, 1.0 if alignment == "unaligned" else 0.0)
            steps.append(extent / bins)
            grid.append(sampling or max(0, math.ceil(extent / bins)))
        if 0 in grid:
            continue
        for c in range(features.shape[1]):
            plane = features[int(image), c].tolist()
            for p in range(size[0]):
                for q in range(size[1]):
                    values = [
                        sampled(
                            plane,
                            starts[0] + p * steps[0] + (i + 0.5) * steps[0] / grid[0],
                            starts[1] + q * steps[1] + (j + 0.5) * steps[1] / grid[1],
                        )
                        for i in range(grid[0])
                        for j in range(grid[1])
                    ]
                    out[k, c, p, q] = max(values) if mode == "max" else sum(values) / len(values)
    return out


def level_zero(regions):
    return torch.zeros(len(regions), dtype=torch.int64)


def pooled(server, features, regions, size=(2, 3), scale=0.5, sampling=0, alignment="aligned", mode="avg"):
    arguments = ([features], regions, level_zero(regions), list(size), [scale], sampling, alignment, mode)
    return serve(server, "roi_align", *arguments)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sampling", [0, 2])
def test_it_does_what_one_would_write_on_paper(server, alignment, mode, sampling):
    x, regions = maps(2, 2, 9, 13, dtype=torch.float64), torch.cat([rois(4), ODD.double()])
    expected = in_plain_python(x, regions, (2, 3), 0.5, sampling, alignment, mode)
    found = pooled(server, x, regions, sampling=sampling, alignment=alignment, mode=mode)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert found.any()


@pytest.mark.parametrize("alignment", ["aligned", "unaligned"])
@pytest.mark.parametrize("sampling", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_averages_and_their_gradient_equal_torchvision(alignment, sampling, dtype):
    x, regions = maps(2, 20, 9, 13, dtype=dtype).requires_grad_(), rois(9).to(dtype)
    ours = det_ops.roi_align(x, regions, (3, 4), 0.5, sampling, alignment)
    peer = torchvision.ops.roi_align(x, regions, (3, 4), 0.5, sampling or -1, alignment == "aligned")
    assert_close(ours.detach(), peer.detach(), CLOSE[dtype])
    weight = maps(*ours.shape, dtype=dtype, seed=9)
    assert_close(torch.autograd.grad(ours, x, weight)[0], torch.autograd.grad(peer, x, weight)[0], CLOSE[dtype])


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("layout", [PLANES, LAST])
@pytest.mark.parametrize("channels", [0, 1, 3, 17, 64, 80])
def test_native_equals_the_reference_with_gradients(native_library, dtype, layout, channels):
    fine = maps(2, channels, 18, 26, dtype=dtype, layout=layout)
    x = maps(2, channels, 9, 13, dtype=dtype, layout=layout, seed=5)
    regions, levels = torch.cat([rois(6).float(), ODD]), torch.arange(14) % 2
    grad = maps(14, channels, 2, 3, dtype=dtype, layout=layout, seed=6)
    sizes = [*fine.shape, *x.shape]
    for alignment in ALIGNMENTS:
        for mode, sampling in (("avg", 0), ("avg", 2), ("max", 0), ("max", 3)):
            rest = (sampling, alignment, mode)
            arguments = ([fine, x], regions, levels, [2, 3], [1.0, 0.5], *rest)
            assert_close(native("roi_align", *arguments), reference("roi_align", *arguments), CLOSE[dtype])
            backward = (grad, [fine, x], regions, levels, sizes, [1.0, 0.5], *rest, layout is LAST)
            ours, theirs = native("roi_align_backward", *backward), reference("roi_align_backward", *backward)
            assert_close(ours, theirs, CLOSE[dtype])


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_is_right(alignment, mode):
    x, regions = maps(2, 3, 9, 13, dtype=torch.float64).requires_grad_(), torch.cat([rois(3), ODD[:6].double()])

    def call(features):
        return det_ops.roi_align(features, regions, (2, 3), 0.5, 2, alignment, mode)

    assert torch.autograd.gradcheck(call, (x,), fast_mode=True)


def test_each_region_is_pooled_from_its_own_level():
    features = [maps(2, 5, 32 >> i, 40 >> i, seed=i) for i in range(3)]
    regions, levels = rois(20).float(), torch.arange(20) % 3
    scales = [1.0, 0.5, 0.25]
    found = det_ops.multi_level_roi_align(features, regions, levels, (3, 3), scales)
    for level in range(3):
        member = levels == level
        expected = det_ops.roi_align(features[level], regions[member], (3, 3), scales[level])
        assert torch.equal(found[member], expected)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2)])
def test_tiny_maps(server, shape):
    x, regions = maps(2, 3, *shape, dtype=torch.float64), torch.cat([rois(4, width=8, height=8), ODD.double()])
    for alignment in ALIGNMENTS:
        expected = in_plain_python(x, regions, (2, 2), 0.5, 0, alignment, "avg")
        torch.testing.assert_close(pooled(server, x, regions, (2, 2), alignment=alignment), expected)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sampling", [0, 2])
def test_regions_that_are_no_numbers_or_endless_pool_zeros(server, alignment, mode, sampling):
    regions = torch.tensor([[0.0, 1, 1, 9, 9]]).repeat(12, 1)
    for i in range(4):
        for j, bad in enumerate((NAN, INF, -INF)):
            regions[3 * i + j, 1 + i] = bad
    regions = torch.cat([regions, torch.tensor([[0.0, 1, 1, 9, 9]])])
    found = pooled(server, maps(1, 3, 9, 13) + 9, regions, sampling=sampling, alignment=alignment, mode=mode)
    swallowed = regions[:-1][found[:-1].flatten(1).any(1)]
    # Where a rule bounds the extent from below, a region that ends at -inf is as good as one without extent.
    assert alignment != "aligned" or len(swallowed) == 0
    assert not swallowed[:, 1:].isnan().any()
    assert found[-1].all()
    assert found.isfinite().all()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("mode", MODES)
def test_huge_regions_compute_a_bounded_number_of_samples(server, mode):
    huge = torch.tensor([[0.0, -1e8, -1e8, 1e8, 1e8], [0, 0, 0, 1e8, 5], [0, -1e8, 2, 20, 9], [0, 1e8, 1e8, 2e8, 2e8]])
    x = maps(1, 3, 9, 13)
    with ElementCount() as count:
        found = pooled(server, x, huge, (7, 7), 1.0, mode=mode)
    assert count.elements < 100_000_000  # the native kernel would not return if it visited all of the 1e16 samples
    assert not found[3].any()
    if mode == "avg":  # all of the map lies in one bin: its sum, over the number of samples
        assert found[1].any()
        assert float(found.abs().max()) < 1e-4
    else:
        assert found[0].any()
        assert (found >= 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_huge_regions_give_the_same_natively_with_gradients(native_library, mode):
    huge = torch.tensor([[0.0, -1e6, -1e6, 1e6, 1e6], [0, 0, 0, 1e6, 5], [0, -1e6, 2, 20, 9]], dtype=torch.float64)
    x, grad = maps(1, 3, 9, 13, dtype=torch.float64), maps(3, 3, 2, 3, dtype=torch.float64)
    assert_close(pooled("native", x, huge, mode=mode), pooled("reference", x, huge, mode=mode), 1e-8)
    backward = (grad, [x], huge, level_zero(huge), list(x.shape), [0.5], 0, "aligned", mode, False)
    assert_close(native("roi_align_backward", *backward), reference("roi_align_backward", *backward), 1e-8)


def test_a_map_without_pixels_is_not_read():
    assert not native("roi_align", [torch.zeros(1, 3, 0, 5)], ODD[:1] * 0, level_zero(ODD[:1]), [2, 2], [1.0], 0,
                      "aligned", "avg").any()  # fmt: skip


@pytest.mark.parametrize("server", SERVERS)
def test_an_ulp_of_extent_decides_the_number_of_samples_as_in_torchvision(server):
    edges = torch.linspace(7, 70, 4000)
    regions = torch.stack([edges * 0, edges * 0 + 0.3, edges * 0 + 0.7, edges, edges + 3], 1)
    x = maps(1, 1, 40, 40)
    peer = torchvision.ops.roi_align(x, regions, (7, 7), 0.5, -1, True)
    torch.testing.assert_close(pooled(server, x, regions, (7, 7)), peer, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_strides_do_not_matter(mode):
    x, regions = maps(2, 17, 9, 13), rois(7).float()
    expected = det_ops.roi_align(x, regions, (2, 3), 0.5, mode=mode)
    for same in (scattered(x), x.transpose(2, 3).contiguous().transpose(2, 3), x.contiguous(memory_format=LAST)):
        torch.testing.assert_close(det_ops.roi_align(same, scattered(regions), (2, 3), 0.5, mode=mode), expected)
    flat = x[:1, :1].expand(2, 17, 9, 13)
    torch.testing.assert_close(
        det_ops.roi_align(flat, regions, (2, 3), 0.5, mode=mode),
        det_ops.roi_align(flat.contiguous(), regions, (2, 3), 0.5, mode=mode),
    )


def test_no_regions_or_no_images_keep_the_gradient_path():
    for images in (0, 2):
        x = maps(images, 2, 4, 4).requires_grad_()
        out = det_ops.roi_align(x, torch.zeros(0, 5), (2, 2), 1.0)
        assert out.shape == (0, 2, 2, 2)
        (grad,) = torch.autograd.grad(out.sum(), x)
        assert grad.shape == x.shape
        assert not grad.any()


@settings(max_examples=40, deadline=None)
@given(
    drawn=st.lists(st.tuples(st.integers(0, 1), *[st.integers(-8, 30)] * 4), max_size=9),
    channels=st.sampled_from([0, 1, 3, 17]),
    alignment=st.sampled_from(ALIGNMENTS),
    mode=st.sampled_from(MODES),
    sampling=st.integers(0, 3),
    shape=st.sampled_from([(1, 9), (9, 1), (6, 7)]),
)
def test_native_equals_the_reference_on_grids(native_library, drawn, channels, alignment, mode, sampling, shape):
    x, regions = maps(2, channels, *shape, dtype=torch.float64), torch.tensor(drawn, dtype=torch.float64).reshape(-1, 5)
    rest = {"scale": 0.25, "sampling": sampling, "alignment": alignment, "mode": mode}
    assert_close(pooled("native", x, regions, **rest), pooled("reference", x, regions, **rest), 1e-10)


@pytest.mark.parametrize("rule", ["mmdet", "mmdet-v1", "detectron2"])
def test_levels_follow_the_published_rules(rule):
    sides = torch.tensor([1.0, 55, 111, 112, 113, 223.9, 224, 300, 448, 5000])
    regions = torch.stack([sides * 0, sides * 0, sides * 0, sides, sides], 1)
    extra = 1 if rule == "mmdet-v1" else 0
    expected = [
        4 + math.log2(s / 224 + 1e-8) - 2 if rule == "detectron2" else math.log2((s + extra) / 56 + 1e-6)
        for s in sides.tolist()
    ]
    clamped = [min(3, max(0, math.floor(level))) for level in expected]
    assert det_ops.roi_levels(regions, 4, rule=rule).tolist() == clamped


def test_regions_without_extent_or_number_have_a_level():
    odd = torch.tensor([[0, 5, 5, 5, 5], [0, 9, 9, 3, 2], [0, NAN, 0, 1, 1], [0, 0, 0, INF, INF]])
    assert det_ops.roi_levels(odd, 4)[:3].tolist() == [0, 0, 0]
    assert int(det_ops.roi_levels(odd, 4)[3]) in range(4)
    alone = det_ops.roi_levels(odd, 1)
    assert alone.tolist() == [0] * len(odd)
    assert alone.dtype == torch.int64
