"""Gradients computed by torchvision equal those of the reference, also on the border."""

import pytest
import torch

from det_ops import dispatch


def both(monkeypatch, name, *arguments):
    """The result of the fallback with torchvision and without."""
    with_peer = dispatch.call_fallback(name, *arguments)
    monkeypatch.setattr(dispatch, "torchvision_ops", lambda: None)
    return with_peer, dispatch.call_fallback(name, *arguments)


def assert_equal(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        assert a.stride() == b.stride()
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("alignment", ["aligned", "unaligned"])
@pytest.mark.parametrize("sampling", [0, 2])
@pytest.mark.parametrize("inverted", [False, True])  # torchvision crashes for it on a CPU, so the reference takes it
def test_roi_align(monkeypatch, alignment, sampling, inverted):
    torch.manual_seed(0)
    rois = torch.tensor([[0, 1, 2, 30, 40], [1, -20, -9, 20, 22], [1, 50, 3, 90, 60]], dtype=torch.float64)
    if inverted:
        rois[2, 3] = 10
    levels = torch.tensor([0, 1, 0])
    grad = torch.randn(3, 5, 3, 2, dtype=torch.float64)
    shapes, scales = [2, 5, 14, 15, 2, 5, 7, 8], [0.25, 0.125]
    arguments = (grad, [], rois, levels, shapes, scales, sampling, alignment, "avg", False)
    assert_equal(*both(monkeypatch, "roi_align_backward", *arguments))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("groups", "offset_groups"), [(1, 1), (2, 4)])
def test_deform_conv2d_with_taps_on_the_border(monkeypatch, masked, groups, offset_groups):
    """Offsets of zero with padding 1: every border tap lies exactly on the line around the image."""
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    offset = torch.randn(2, 18 * offset_groups, 5, 6, dtype=torch.float64)
    offset[:, ::3] = 0
    offset[:, 1] = 1e6
    weight = torch.randn(4, 8 // groups, 3, 3, dtype=torch.float64)
    mask = torch.rand(2, 9 * offset_groups, 5, 6, dtype=torch.float64) if masked else None
    grad = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    arguments = (grad, x, offset, weight, mask, [1, 1], [1, 1], [1, 1], groups, offset_groups)
    assert_equal(*both(monkeypatch, "deform_conv2d_backward", *arguments))
