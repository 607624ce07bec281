"""Deformable convolution against plain Python, torch, torchvision and the reference, and hostile offsets."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from op_samples import CLOSE, LAST, PLANES, SERVERS, assert_close, maps, native, offsets, reference, scattered, serve
from torch.nn import functional as F

import det_ops

WIDE = torch.float64
INF, NAN = math.inf, math.nan


def out_size(side, kernel, stride, padding, dilation):
    return (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def problem(
    channels=4, outputs=6, shape=(7, 9), kernel=(3, 3), geometry=((1, 1), (1, 1), (1, 1)), groups=1, shared=1,
    dtype=WIDE, layout=PLANES, images=2, spread=1.5,
):  # fmt: skip
    """Arguments of the operator."""
    stride, padding, dilation = geometry
    size = [out_size(shape[i], kernel[i], stride[i], padding[i], dilation[i]) for i in (0, 1)]
    taps = shared * kernel[0] * kernel[1]
    return (
        maps(images, channels, *shape, dtype=dtype, layout=layout),
        offsets(images, 2 * taps, *size, spread=spread).to(dtype),
        maps(outputs, channels // groups, *kernel, dtype=dtype, seed=3),
        maps(images, taps, *size, dtype=dtype, seed=4).sigmoid(),
        maps(outputs, dtype=dtype, seed=5),
        *(list(stride), list(padding), list(dilation), groups, shared),
    )


def on_paper(x, offset, weight, mask, bias, stride, padding, dilation, groups, shared):
    images, channels, height, width = x.shape
    outputs, per_group, kernel_h, kernel_w = weight.shape
    taps, size = kernel_h * kernel_w, offset.shape[2:]
    out = torch.zeros(images, outputs, *size, dtype=WIDE)
    for b, o, p, q in itertools.product(range(images), range(outputs), range(size[0]), range(size[1])):
        total = float(bias[o]) if bias is not None else 0.0
        for c, i, j in itertools.product(range(per_group), range(kernel_h), range(kernel_w)):
            source = o // (outputs // groups) * per_group + c
            tap = source // (channels // shared) * taps + i * kernel_w + j
            y = p * stride[0] - padding[0] + i * dilation[0] + float(offset[b, 2 * tap, p, q])
            z = q * stride[1] - padding[1] + j * dilation[1] + float(offset[b, 2 * tap + 1, p, q])
            value = 0.0
            if -1 < y < height and -1 < z < width:
                for row, column in itertools.product((0, 1), (0, 1)):
                    at_y, at_z = math.floor(y) + row, math.floor(z) + column
                    if 0 <= at_y < height and 0 <= at_z < width:
                        share = (1 - abs(y - at_y)) * (1 - abs(z - at_z))
                        value += share * float(x[b, source, at_y, at_z])
            total += value * float(weight[o, c, i, j]) * (float(mask[b, tap, p, q]) if mask is not None else 1.0)
        out[b, o, p, q] = total
    return out


def without(arguments, *positions):
    return tuple(None if i in positions else value for i, value in enumerate(arguments))


def backward_of(arguments):
    x, offset, weight, mask, _, *geometry = arguments
    size = (len(x), len(weight), *offset.shape[2:])
    layout = LAST if x.is_contiguous(memory_format=LAST) and not x.is_contiguous() else PLANES
    return (maps(*size, dtype=x.dtype, layout=layout, seed=8), x, offset, weight, mask, *geometry)


ODD_GEOMETRY = ((2, 1), (0, 2), (1, 2))


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(("groups", "shared"), [(1, 1), (2, 1), (1, 2), (2, 4)])
def test_it_does_what_is_on_paper(server, groups, shared):
    given_inputs = problem(shape=(5, 6), kernel=(3, 2), geometry=ODD_GEOMETRY, groups=groups, shared=shared)
    for arguments in (given_inputs, without(given_inputs, 3), without(given_inputs, 3, 4)):
        found = serve(server, "deform_conv2d", *arguments)
        torch.testing.assert_close(found, on_paper(*arguments), rtol=0, atol=1e-10)


@pytest.mark.parametrize("server", SERVERS)
def test_zero_offsets_give_the_ordinary_convolution(server):
    x, offset, weight, _, bias, *geometry = problem(groups=2, geometry=((2, 2), (1, 1), (1, 1)))
    found = serve(server, "deform_conv2d", x, offset * 0, weight, None, bias, *geometry)
    torch.testing.assert_close(found, F.conv2d(x, weight, bias, *geometry[:3], 2))


@pytest.mark.parametrize("geometry", [((1, 1), (1, 1), (1, 1)), ODD_GEOMETRY])
@pytest.mark.parametrize(("groups", "shared"), [(1, 1), (2, 4)])
@pytest.mark.parametrize("masked", [True, False])
def test_values_equal_torchvision(geometry, groups, shared, masked):
    torchvision = pytest.importorskip("torchvision", reason="the results of torchvision are compared with ours")
    x, offset, weight, mask, bias, *rest = problem(geometry=geometry, groups=groups, shared=shared, spread=6)
    mask = mask if masked else None
    peer = torchvision.ops.deform_conv2d(x, offset, weight, bias, *rest[:3], mask)
    for server in ("native", "reference"):
        found = serve(server, "deform_conv2d", x, offset, weight, mask, bias, *rest)
        torch.testing.assert_close(found, peer, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("layout", [PLANES, LAST])
@pytest.mark.parametrize(("channels", "groups", "shared"), [(0, 1, 1), (1, 1, 1), (3, 3, 1), (17, 1, 1), (68, 2, 4)])
def test_native_equals_the_reference_with_gradients(native_library, dtype, layout, channels, groups, shared):
    for geometry in (((1, 1), (1, 1), (1, 1)), ODD_GEOMETRY):
        whole = problem(channels, groups * 2, (7, 9), (3, 3), geometry, groups, shared, dtype, layout)
        for arguments in (whole, without(whole, 3, 4)):
            assert_close(native("deform_conv2d", *arguments), reference("deform_conv2d", *arguments), CLOSE[dtype])
            backward = backward_of(arguments)
            ours, theirs = (call("deform_conv2d_backward", *backward) for call in (native, reference))
            assert_close(ours, theirs, CLOSE[dtype])


@pytest.mark.parametrize("masked", [True, False])
def test_the_gradient_is_right(masked):
    x, offset, weight, mask, bias, *geometry = problem(2, 2, (4, 5), groups=2, shared=2, images=1)
    inputs = [t.requires_grad_() for t in ((x, offset, weight, bias, mask) if masked else (x, offset, weight, bias))]

    def call(x, offset, weight, bias, mask=None):
        return det_ops.deform_conv2d(x, offset, weight, mask, bias, *map(tuple, geometry[:3]), *geometry[3:])

    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("masked", [True, False])
def test_zero_offsets_have_no_slope_on_the_line_around_the_image(server, masked):
    whole = problem(shape=(5, 5))
    x, offset, weight, mask, _, *geometry = whole
    arguments = (x, offset * 0, weight, mask if masked else None, None, *geometry)
    grads = serve(server, "deform_conv2d_backward", *backward_of(arguments))
    slopes = grads[1].unflatten(1, (3, 3, 2))  # (B, i, j, (y, x), h, w)
    for edge, tap in ((0, 0), (-1, 2)):  # with padding 1 the outer taps of the border lie exactly on -1 and H
        assert not slopes[:, tap, :, :, edge].any()
        assert not slopes[:, :, tap, :, :, edge].any()
    assert slopes[:, 1, 1].all()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("far", [1e3, 1e9, 1e30, -1e3, -1e30, INF, -INF, NAN])
def test_taps_far_away_read_zeros_and_have_no_gradient(server, far):
    x, offset, weight, mask, bias, *geometry = problem()
    arguments = (x, torch.full_like(offset, far), weight, mask, bias, *geometry)
    found = serve(server, "deform_conv2d", *arguments)
    torch.testing.assert_close(found, bias[:, None, None].expand_as(found))
    x_grad, offset_grad, weight_grad, mask_grad = serve(server, "deform_conv2d_backward", *backward_of(arguments))
    for grad in (x_grad, offset_grad, weight_grad, mask_grad):
        assert not grad.any()


@settings(max_examples=40, deadline=None)
@given(
    exact=st.lists(st.sampled_from([-1.0, -2.0, 0.0, 1.0, 0.5, 7.0, 1e9, NAN]), min_size=18, max_size=18),
    shape=st.sampled_from([(1, 6), (6, 1), (1, 1), (5, 4)]),
    channels=st.sampled_from([1, 3, 17]),
)
def test_native_equals_the_reference_for_exact_and_hostile_offsets(native_library, exact, shape, channels):
    x, offset, weight, mask, bias, *geometry = problem(channels, 2, shape)
    offset = torch.tensor(exact, dtype=WIDE)[None, :, None, None].expand_as(offset)
    arguments = (x, offset, weight, mask, bias, *geometry)
    assert_close(native("deform_conv2d", *arguments), reference("deform_conv2d", *arguments), 1e-10)
    backward = backward_of(arguments)
    assert_close(native("deform_conv2d_backward", *backward), reference("deform_conv2d_backward", *backward), 1e-10)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_masks_of_all_zeros_and_all_ones(server, value):
    x, offset, weight, mask, bias, *geometry = problem()
    found = serve(server, "deform_conv2d", x, offset, weight, torch.full_like(mask, value), bias, *geometry)
    plain = serve(server, "deform_conv2d", x, offset, weight, None, bias, *geometry)
    torch.testing.assert_close(found, plain if value else bias[:, None, None].expand_as(plain))


@pytest.mark.parametrize("server", SERVERS)
def test_no_images_give_none(server):
    arguments = problem(images=0)
    assert serve(server, "deform_conv2d", *arguments).shape == (0, 6, 7, 9)
    shapes = [g.shape for g in serve(server, "deform_conv2d_backward", *backward_of(arguments))]
    assert shapes == [t.shape for t in arguments[:4]]


def test_strides_do_not_matter():
    arguments = problem()
    tensors, geometry = arguments[:5], arguments[5:]
    expected = native("deform_conv2d", *arguments)
    torch.testing.assert_close(native("deform_conv2d", *map(scattered, tensors), *geometry), expected)
    backward = backward_of(arguments)
    spread = [scattered(v) if isinstance(v, torch.Tensor) else v for v in backward]
    for ours, theirs in zip(
        native("deform_conv2d_backward", *spread), native("deform_conv2d_backward", *backward), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_more_pixels_than_a_block_give_the_same(native_library):
    arguments = problem(16, 3, (70, 75), images=1, dtype=torch.float32)
    assert_close(native("deform_conv2d", *arguments), reference("deform_conv2d", *arguments), 1e-5)
    backward = backward_of(arguments)
    assert_close(native("deform_conv2d_backward", *backward), reference("deform_conv2d_backward", *backward), 1e-5)
