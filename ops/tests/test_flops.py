"""torch.utils.flop_counter counts as many operations as for the same convolution of torch."""

import pytest
import torch
from op_samples import maps
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import det_ops


def count(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("stride", "groups", "kernel"), [(1, 1, 3), (2, 2, 3), (1, 4, 1)])
def test_a_deformable_convolution_counts_as_the_plain_one(device, stride, groups, kernel):
    x = maps(2, 8, 9, 10).to(device).requires_grad_()
    weight = maps(12, 8 // groups, kernel, kernel, seed=1).to(device).requires_grad_()
    plain = F.conv2d(x, weight, None, stride, kernel // 2, 1, groups)
    offset = torch.zeros(2, 2 * kernel * kernel, *plain.shape[2:], device=device, requires_grad=True)

    def deformed():
        return det_ops.deform_conv2d(x, offset, weight, stride=stride, padding=kernel // 2, groups=groups)

    forward = count(deformed)
    assert forward == count(lambda: F.conv2d(x, weight, None, stride, kernel // 2, 1, groups)) > 0
    if device == "cpu":
        assert count(lambda: deformed().sum().backward()) == 3 * forward


def test_a_masked_convolution_counts_as_the_whole_one():
    x, weight = maps(2, 8, 9, 10), maps(12, 8, 3, 3, seed=1)
    masked = count(lambda: det_ops.masked_conv2d(x, torch.zeros(2, 9, 10), weight, padding=1))
    assert masked == count(lambda: F.conv2d(x, weight, padding=1)) > 0


def test_work_on_single_elements_counts_nothing():
    rois = torch.tensor([[0.0, 1.0, 1.0, 6.0, 6.0]])
    assert count(lambda: det_ops.roi_align(maps(1, 4, 8, 8), rois, (2, 2), 1.0)) == 0
