"""RoIPool and deformable RoI pooling against plain Python in double precision, and native against the reference."""

import math

import pytest
import torch
from op_samples import (
    CLOSE,
    LAST,
    PLANES,
    ElementCount,
    assert_close,
    maps,
    native,
    offsets,
    reference,
    rois,
    scattered,
    serve,
)

import det_ops

WIDE = torch.float64
INF, NAN = math.inf, math.nan
ODD = torch.tensor(
    [[1.0, -6.0, -3.0, 4.0, 40.0], [0, -90, 0, -60, 10], [0, 5, 5, 5, 5], [1, 9, 9, 3, 2], [1, 0, 0, 30, 22]],
    dtype=WIDE,
)
NOWHERE = torch.tensor([[0, NAN, 1, 9, 9], [0, 1, 1, 9, NAN], [0, 1, -INF, 9, INF], [0, 1e30, 1, 2e30, 4]], dtype=WIDE)


def roi_pool_on_paper(features, regions, size, scale):
    """Maxima of whole pixels from the floor of a bin's start to the ceiling of its end; 0 where there are none."""
    height, width = features.shape[2:]
    out = torch.zeros(len(regions), features.shape[1], *size, dtype=WIDE)
    for k, (image, x1, y1, x2, y2) in enumerate(regions.tolist()):
        top, left = y1 * scale, x1 * scale
        tall, wide = (y2 + 1) * scale - top, (x2 + 1) * scale - left
        if tall <= 0 or wide <= 0:
            continue
        for p in range(size[0]):
            for q in range(size[1]):
                first_y, first_x = math.floor(p * tall / size[0] + top), math.floor(q * wide / size[1] + left)
                end_y, end_x = math.ceil((p + 1) * tall / size[0] + top), math.ceil((q + 1) * wide / size[1] + left)
                bin_rows = range(max(0, first_y), min(height, end_y))
                bin_columns = range(max(0, first_x), min(width, end_x))
                for c in range(features.shape[1]):
                    plane = features[int(image), c]
                    out[k, c, p, q] = max((float(plane[y, x]) for y in bin_rows for x in bin_columns), default=0.0)
    return out


def bilinear(plane, y, x):
    """The value at a point of a plane whose edge values continue outside."""
    height, width = plane.shape
    low_y, low_x = min(int(y), height - 1), min(int(x), width - 1)
    high_y, high_x = min(low_y + 1, height - 1), min(low_x + 1, width - 1)
    fy, fx = y - low_y, x - low_x
    top = float(plane[low_y, low_x]) * (1 - fx) + float(plane[low_y, high_x]) * fx
    bottom = float(plane[high_y, low_x]) * (1 - fx) + float(plane[high_y, high_x]) * fx
    return top * (1 - fy) + bottom * fy


def deform_roi_pool_on_paper(features, regions, offset, size, scale, sampling, gamma):
    height, width = features.shape[2:]
    out = torch.zeros(len(regions), features.shape[1], *size, dtype=WIDE)
    for k, (image, x1, y1, x2, y2) in enumerate(regions.tolist()):
        tall, wide = (y2 - y1) * scale, (x2 - x1) * scale
        grid_y, grid_x = sampling or math.ceil(tall / size[0]), sampling or math.ceil(wide / size[1])
        if grid_y <= 0 or grid_x <= 0:
            continue
        for p in range(size[0]):
            for q in range(size[1]):
                top, left = y1 * scale - 0.5 + p * tall / size[0], x1 * scale - 0.5 + q * wide / size[1]
                if offset is not None:
                    left += gamma * wide * float(offset[k, 0, p, q])
                    top += gamma * tall * float(offset[k, 1, p, q])
                for c in range(features.shape[1]):
                    total = 0.0
                    for i in range(grid_y):
                        for j in range(grid_x):
                            y = top + (i + 0.5) * tall / size[0] / grid_y
                            x = left + (j + 0.5) * wide / size[1] / grid_x
                            if -1 <= y <= height and -1 <= x <= width:
                                inside = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                                total += bilinear(features[int(image), c], *inside)
                    out[k, c, p, q] = total / (grid_y * grid_x)
    return out


def deform_psroi_pool_on_paper(features, regions, offset, size, scale, channels, group, part, samples, gamma):
    height, width = features.shape[2:]
    out = torch.zeros(len(regions), channels, *size, dtype=WIDE)
    classes = 1 if offset is None else offset.shape[1] // 2
    for k, (image, x1, y1, x2, y2) in enumerate(regions.tolist()):
        top, left = round(y1) * scale - 0.5, round(x1) * scale - 0.5
        tall = max((round(y2) + 1) * scale - 0.5 - top, 0.1)
        wide = max((round(x2) + 1) * scale - 0.5 - left, 0.1)
        for c in range(channels):
            of = c // (channels // classes)
            for p in range(size[0]):
                for q in range(size[1]):
                    y0, x0 = top + p * tall / size[0], left + q * wide / size[1]
                    if offset is not None:
                        cell = math.floor(p / size[0] * part), math.floor(q / size[1] * part)
                        x0 += gamma * wide * float(offset[(k, 2 * of, *cell)])
                        y0 += gamma * tall * float(offset[(k, 2 * of + 1, *cell)])
                    plane = features[int(image), (c * group + p * group // size[0]) * group + q * group // size[1]]
                    values = []
                    for i in range(samples):
                        for j in range(samples):
                            y, x = y0 + i * tall / size[0] / samples, x0 + j * wide / size[1] / samples
                            if -0.5 <= y <= height - 0.5 and -0.5 <= x <= width - 0.5:
                                inside = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                                values.append(bilinear(plane, *inside))
                    out[k, c, p, q] = sum(values) / max(len(values), 1)
    return out


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("shape", [(9, 13), (1, 7), (7, 1)])
@pytest.mark.parametrize("scale", [0.5, 0.3])
def test_roi_pool_does_what_is_on_paper(server, shape, scale):
    x, regions = maps(2, 3, *shape, dtype=WIDE) - 2, torch.cat([rois(5), ODD])  # negative: an empty bin shows
    found, _ = serve(server, "roi_pool", x, regions, [2, 3], scale)
    expected = roi_pool_on_paper(x, regions, (2, 3), scale)
    assert torch.equal(found, expected)
    assert (found == 0).any()


@pytest.mark.parametrize("server", ["native", "reference"])
def test_roi_pool_takes_the_first_of_equal_pixels(server):
    found, positions = serve(
        server, "roi_pool", torch.ones(1, 20, 6, 6), torch.tensor([[0.0, 2, 1, 4, 4]]), [1, 1], 1.0
    )
    assert (found == 1).all()
    assert (positions == 1 * 6 + 2).all()


@pytest.mark.parametrize("server", ["native", "reference"])
def test_roi_pool_lets_nan_through(server):
    x = maps(1, 17, 6, 6)
    x[0, :, 3, 3] = NAN
    found, positions = serve(server, "roi_pool", x, torch.tensor([[0.0, 1, 1, 4, 4]]), [1, 1], 1.0)
    assert found.isnan().all()
    assert (positions == 3 * 6 + 3).all()


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("sampling", [0, 1, 3])
@pytest.mark.parametrize("shifted", [False, True])
def test_deform_roi_pool_does_what_is_on_paper(server, sampling, shifted):
    x, regions = maps(2, 3, 9, 13, dtype=WIDE), torch.cat([rois(4), ODD])
    shift = offsets(len(regions), 2, 2, 3) if shifted else None
    found = serve(server, "deform_roi_pool", x, regions, shift, [2, 3], 0.5, sampling, 0.1)
    expected = deform_roi_pool_on_paper(x, regions, shift, (2, 3), 0.5, sampling, 0.1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert found.any()


def test_deform_roi_pool_without_shift_is_roi_align():
    x, regions = maps(2, 5, 9, 13, dtype=WIDE), torch.cat([rois(4), ODD])
    for sampling in (0, 2):
        found = det_ops.deform_roi_pool(x, regions, None, (2, 3), 0.5, sampling)
        torch.testing.assert_close(found, det_ops.roi_align(x, regions, (2, 3), 0.5, sampling))


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize(("group", "part", "classes"), [(1, 2, 1), (2, 3, 2), (3, 1, 0), (2, 2, 4)])
def test_deform_psroi_pool_does_what_is_on_paper(server, group, part, classes):
    x, regions = maps(2, 4 * group**2, 9, 13, dtype=WIDE), torch.cat([rois(3), ODD])
    shift = offsets(len(regions), 2 * classes, part, part) if classes else None
    rest = ([2, 3], 0.5, 4, group, part, 4, 0.1)
    found = serve(server, "deform_psroi_pool", x, regions, shift, *rest)
    expected = deform_psroi_pool_on_paper(x, regions, shift, *rest)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert found.any()


def finite_differences(call, inputs, weight, step=1e-6):
    """The gradient of sum(weight * call(*inputs)) in each input, one element at a time."""
    grads = []
    for x in inputs:
        grad, flat = torch.zeros_like(x).flatten(), x.view(-1)
        for i in range(len(flat)):
            value = flat[i].clone()
            flat[i] = value + step
            above = (call(*inputs) * weight).sum()
            flat[i] = value - step
            grad[i] = (above - (call(*inputs) * weight).sum()) / (2 * step)
            flat[i] = value
        grads.append(grad.view_as(x))
    return grads


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("name", ["roi_pool", "deform_roi_pool", "deform_psroi_pool"])
def test_gradients_are_the_finite_differences_of_what_is_on_paper(server, name):
    x, regions, weight = maps(1, 2, 4, 5, dtype=WIDE), rois(2, 1, 8, 8), maps(2, 2, 2, 2, dtype=WIDE, seed=6)
    shift = offsets(2, 2, 2, 2, spread=0.3)
    if name == "roi_pool":
        positions = serve(server, name, x, regions, [2, 2], 0.5)[1]
        found = [serve(server, "roi_pool_backward", weight, positions, regions, list(x.shape), False)]
        expected = finite_differences(lambda f: roi_pool_on_paper(f, regions, (2, 2), 0.5), [x], weight)
    elif name == "deform_roi_pool":
        found = serve(server, f"{name}_backward", weight, x, regions, shift, 0.5, 2, 0.1)
        rest = ((2, 2), 0.5, 2, 0.1)
        expected = finite_differences(lambda f, o: deform_roi_pool_on_paper(f, regions, o, *rest), [x, shift], weight)
    else:
        found = serve(server, f"{name}_backward", weight, x, regions, shift, 0.5, 1, 2, 3, 0.1)
        rest = ((2, 2), 0.5, 2, 1, 2, 3, 0.1)
        expected = finite_differences(lambda f, o: deform_psroi_pool_on_paper(f, regions, o, *rest), [x, shift], weight)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
        assert ours.any()


def cases(channels, dtype, layout):
    """Name, forward arguments, and those of the backward operator."""
    x, regions = maps(2, 4 * channels, 9, 13, dtype=dtype, layout=layout), torch.cat([rois(6), ODD]).float()
    count = len(regions)
    grad = maps(count, 4 * channels, 2, 3, dtype=dtype, layout=layout, seed=6)
    few = maps(count, channels, 2, 3, dtype=dtype, layout=layout, seed=6)
    shift, parts = (offsets(count, 2, *s, spread=0.5).to(dtype) for s in ((2, 3), (2, 2)))
    positions = reference("roi_pool", x, regions, [2, 3], 0.5)[1]
    yield "roi_pool", (x, regions, [2, 3], 0.5), (grad, positions, regions, list(x.shape), layout is LAST)
    for sampling, given in ((0, shift), (2, None)):
        rest = (0.5, sampling, 0.1)
        yield "deform_roi_pool", (x, regions, given, [2, 3], *rest), (grad, x, regions, given, *rest)
    for given in (parts, None) if channels else ():
        rest = (2, 2, 3, 0.1)
        yield (
            "deform_psroi_pool",
            (x, regions, given, [2, 3], 0.5, channels, *rest),
            (few, x, regions, given, 0.5, *rest),
        )


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("layout", [PLANES, LAST])
@pytest.mark.parametrize("channels", [0, 1, 3, 17])
def test_native_equals_the_reference_with_gradients(native_library, dtype, layout, channels):
    for name, forward, backward in cases(channels, dtype, layout):
        assert_close(native(name, *forward), reference(name, *forward), CLOSE[dtype])
        ours, theirs = native(f"{name}_backward", *backward), reference(f"{name}_backward", *backward)
        assert_close(ours, theirs, CLOSE[dtype])


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("sampling", [0, 2])
def test_regions_that_are_nowhere_pool_zeros(server, sampling):
    x = maps(1, 4, 9, 13, dtype=WIDE) + 9
    assert not serve(server, "deform_roi_pool", x, NOWHERE, None, [2, 3], 0.5, sampling, 0.1).any()
    assert not serve(server, "deform_psroi_pool", x, NOWHERE, None, [2, 3], 0.5, 1, 2, 2, 4, 0.1).any()
    pooled, positions = serve(server, "roi_pool", x, NOWHERE[[0, 1, 3]], [2, 3], 0.5)
    assert not pooled.any()
    assert (positions == -1).all()


@pytest.mark.parametrize("server", ["native", "reference"])
def test_shifts_that_lead_nowhere_pool_zeros_and_have_no_gradient(server):
    x, regions = maps(1, 4, 9, 13, dtype=WIDE) + 9, rois(3, 1)
    grad = maps(3, 4, 2, 2, dtype=WIDE)
    for shift in (torch.full((3, 2, 2, 2), 1e9, dtype=WIDE), torch.full((3, 2, 2, 2), NAN, dtype=WIDE)):
        assert not serve(server, "deform_roi_pool", x, regions, shift, [2, 2], 0.5, 2, 0.1).any()
        assert not serve(server, "deform_psroi_pool", x, regions, shift, [2, 2], 0.5, 4, 1, 2, 4, 0.1).any()
        for name, rest in (("deform_roi_pool", (0.5, 2, 0.1)), ("deform_psroi_pool", (0.5, 1, 2, 4, 0.1))):
            maps_grad, shift_grad = serve(server, f"{name}_backward", grad, x, regions, shift, *rest)
            assert not maps_grad.any()
            assert not shift_grad.nan_to_num(0).any()


@pytest.mark.parametrize("server", ["native", "reference"])
def test_huge_regions_compute_a_bounded_number_of_samples(server):
    huge = torch.tensor([[0.0, -1e8, -1e8, 1e8, 1e8], [0, 0, 0, 1e8, 5]])
    x = maps(1, 4, 9, 13)
    with ElementCount() as count:
        results = (
            serve(server, "roi_pool", x, huge, [2, 3], 0.5)[0],
            serve(server, "deform_roi_pool", x, huge, None, [2, 3], 0.5, 0, 0.1),
            serve(server, "deform_psroi_pool", x, huge, None, [2, 3], 0.5, 1, 2, 2, 4, 0.1),
        )
    assert count.elements < 100_000_000  # a native kernel would not return if it visited all of the 1e16 samples
    for found in results:
        assert found.isfinite().all()
        assert found.any()


def test_huge_deformed_regions_give_the_same_natively_with_gradients(native_library):
    huge = torch.tensor([[0.0, -1e3, -1e3, 1e3, 1e3], [0, 0, 0, 1e6, 5], [0, -1e6, 2, 20, 9]], dtype=WIDE)
    x, shift, grad = maps(1, 3, 9, 13, dtype=WIDE), offsets(3, 2, 2, 3, spread=0.1), maps(3, 3, 2, 3, dtype=WIDE)
    shift[0, 0, 0, 0] = NAN
    forward, rest = (x, huge, shift, [2, 3], 0.5, 0, 0.001), (0.5, 0, 0.001)
    assert_close(native("deform_roi_pool", *forward), reference("deform_roi_pool", *forward), 1e-8)
    ours, theirs = (call("deform_roi_pool_backward", grad, x, huge, shift, *rest) for call in (native, reference))
    assert_close(ours, theirs, 1e-8)


def test_strides_do_not_matter_and_nothing_gives_nothing():
    x, regions, shift = maps(2, 4, 9, 13), rois(5).float(), offsets(5, 2, 2, 2).float()
    for call in (
        lambda f, r, o: det_ops.roi_pool(f, r, (2, 2), 0.5),
        lambda f, r, o: det_ops.deform_roi_pool(f, r, o, (2, 2), 0.5),
        lambda f, r, o: det_ops.deform_psroi_pool(f, r, o, (2, 2), 0.5, 1, 2),
    ):
        torch.testing.assert_close(call(*map(scattered, (x, regions, shift))), call(x, regions, shift))
        assert len(call(x, regions[:0], shift[:0])) == 0
        features = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(call(features, regions[:0], shift[:0]).sum(), features)
        assert not grad.any()
