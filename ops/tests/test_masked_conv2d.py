"""The masked convolution against torch's own, and native against the reference."""

import pytest
import torch
from op_samples import CLOSE, LAST, PLANES, assert_close, maps, native, reference, scattered, serve
from torch.nn import functional as F

import det_ops


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (3, 1)])
def test_it_is_the_convolution_where_the_mask_is_positive(server, padding, kernel):
    x, weight, bias = maps(2, 5, 6, 7), maps(4, 5, *kernel, seed=3), maps(4, seed=4)
    whole = F.conv2d(x, weight, bias, padding=padding)
    mask = maps(2, *whole.shape[2:], seed=5).round()  # negative, zero and positive
    expected = torch.where(mask[:, None] > 0, whole, torch.zeros(()))
    assert 0 < int((mask > 0).sum()) < mask.numel()
    torch.testing.assert_close(serve(server, "masked_conv2d", x, mask, weight, bias, list(padding)), expected)


def test_a_pixel_computed_by_hand():
    x, weight = torch.arange(9.0).reshape(1, 1, 3, 3), torch.ones(1, 1, 2, 2)
    found = det_ops.masked_conv2d(x, torch.tensor([[[1, 0], [0, 1]]]), weight, torch.tensor([0.5]))
    assert found.tolist() == [[[[0.0 + 1 + 3 + 4 + 0.5, 0.0], [0.0, 4.0 + 5 + 7 + 8 + 0.5]]]]


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("wanted", [0, 1])
def test_masks_of_all_zeros_and_all_ones(server, wanted):
    x, weight, bias = maps(2, 5, 6, 7), maps(4, 5, 3, 3, seed=3), maps(4, seed=4)
    for dtype in (torch.bool, torch.uint8, torch.float32):
        found = serve(server, "masked_conv2d", x, torch.full((2, 4, 5), wanted).to(dtype), weight, bias, [0, 0])
        torch.testing.assert_close(found, wanted * F.conv2d(x, weight, bias))


@pytest.mark.parametrize("server", ["native", "reference"])
def test_what_is_not_wanted_is_zero_even_if_the_input_is_no_number(server):
    x = torch.full((1, 3, 4, 4), torch.nan)
    assert not serve(server, "masked_conv2d", x, torch.zeros(1, 4, 4), maps(2, 3, 3, 3), None, [1, 1]).any()


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("layout", [PLANES, LAST])
@pytest.mark.parametrize("channels", [0, 1, 3, 17])
@pytest.mark.parametrize("images", [0, 2])
def test_native_equals_the_reference(native_library, dtype, layout, channels, images):
    x, weight = maps(images, channels, 6, 7, dtype=dtype, layout=layout), maps(4, channels, 3, 3, dtype=dtype)
    for bias in (None, maps(4, dtype=dtype, seed=4)):
        arguments = (x, maps(images, 6, 7).round(), weight, bias, [1, 1])
        assert_close(native("masked_conv2d", *arguments), reference("masked_conv2d", *arguments), CLOSE[dtype])


def test_strides_do_not_matter():
    inputs = maps(2, 5, 6, 7), maps(2, 4, 5).round(), maps(4, 5, 3, 3, seed=3), maps(4, seed=4)
    torch.testing.assert_close(det_ops.masked_conv2d(*map(scattered, inputs)), det_ops.masked_conv2d(*inputs))


def test_it_has_no_gradient():
    x, weight = maps(1, 2, 4, 4).requires_grad_(), maps(3, 2, 3, 3).requires_grad_()
    assert not det_ops.masked_conv2d(x, torch.ones(1, 2, 2), weight).requires_grad
