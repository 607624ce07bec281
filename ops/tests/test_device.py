"""Operators on the device of `--device`, with all tensors there, against the CPU: what copies to and fro would hide."""

import pytest
import torch
from on_device import CPU_ONLY, OnDevice, moved
from op_samples import (
    CLOSE,
    DIFFERENTIABLE,
    LAST,
    PLANES,
    arguments,
    assert_close,
    maps,
    native,
    offsets,
    reference,
    rois,
    scattered,
    with_gradients,
)
from torch import Tensor
from torch.utils import _pytree as pytree

import det_ops
from det_ops import dispatch

NAMES = sorted(set(dispatch.FALLBACKS) - CPU_ONLY)


@pytest.fixture
def operators_on_the_device():
    """Nothing: these tests place their tensors themselves."""


@pytest.mark.parametrize("layout", [PLANES, LAST])
@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("name", NAMES)
def test_every_operator_agrees_with_its_definition_on_the_cpu(chosen_device, name, dtype, layout):
    given = arguments(name, dtype, layout)
    there = moved(given, chosen_device)
    found = native(name, *there)
    assert {x.device.type for x in pytree.tree_leaves(found)} == {chosen_device}
    assert_close(moved(found, "cpu"), reference(name, *given), CLOSE[dtype])
    for before, after in zip(pytree.tree_leaves(given), pytree.tree_leaves(there), strict=True):
        assert torch.equal(before, after.cpu()) if isinstance(before, Tensor) else before == after
    inputs = {x.untyped_storage().data_ptr() for x in pytree.tree_leaves(there) if isinstance(x, Tensor)}
    assert not any(x.numel() and x.untyped_storage().data_ptr() in inputs for x in pytree.tree_leaves(found))


@pytest.mark.parametrize("name", NAMES)
def test_strides_make_no_difference(chosen_device, name):
    given = arguments(name)
    spread = pytree.tree_map(lambda x: scattered(x) if isinstance(x, Tensor) and x.dim() else x, given)
    found, expected = native(name, *moved(spread, chosen_device)), reference(name, *given)
    for ours, theirs in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        assert_close(ours.cpu().contiguous(), theirs.contiguous(), CLOSE[torch.float32])


@pytest.mark.parametrize("name", sorted(CPU_ONLY))
def test_what_has_no_kernel_there_is_computed_all_the_same(chosen_device, name):
    given = arguments(name)
    assert_close(moved(native(name, *moved(given, chosen_device)), "cpu"), reference(name, *given), 0)


def gradients(name, device):
    """Of the first result in all inputs, in double precision, through autograd."""
    given = with_gradients(name, moved(arguments(name, torch.float64), device))
    leaves = [x for x in pytree.tree_leaves(given) if isinstance(x, Tensor) and x.requires_grad]
    result = pytree.tree_leaves(native(name, *given))[0]
    weight = maps(*result.shape, dtype=result.dtype, seed=12).to(device)
    return [g.cpu() for g in torch.autograd.grad(result, leaves, weight)]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_those_of_the_cpu(chosen_device, name):
    assert_close(gradients(name, chosen_device), gradients(name, "cpu"), CLOSE[torch.float64])


@pytest.mark.parametrize("name", NAMES)
def test_operators_run_in_the_order_of_their_stream(chosen_device, name):
    if chosen_device != "cuda":
        pytest.skip("the CPU has no streams")
    given = arguments(name)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late = moved(given, chosen_device)
        torch.cuda._sleep(20_000_000)
        values = pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, late)
        found = moved(native(name, *values), "cpu")
    assert_close(found, reference(name, *given), CLOSE[torch.float32])


def test_a_compiled_function_gives_the_same(chosen_device):
    def function(regions, x):
        pooled = det_ops.roi_align(x * 2, regions, (2, 3), 0.5)
        return det_ops.sigmoid_focal_loss(pooled.flatten(1), torch.arange(5, device=x.device), reduction="sum").sin()

    given = moved((rois(5).float(), maps(2, 4, 11, 15)), chosen_device)
    backend = "inductor" if chosen_device == "cuda" else "aot_eager"
    torch._dynamo.reset()
    results = []
    for call in (torch.compile(function, fullgraph=True, backend=backend), function):
        x = given[1].clone().requires_grad_()
        loss = call(given[0], x)
        results.append((loss.detach(), *torch.autograd.grad(loss, x)))
    torch._dynamo.reset()
    assert_close(*results, 1e-5)


def test_autocast_computes_convolutions_in_its_dtype(chosen_device):
    x, weight, shift = moved((maps(2, 4, 7, 9), maps(6, 4, 3, 3), offsets(2, 18, 7, 9).float()), chosen_device)
    with torch.autocast(chosen_device, dtype=torch.bfloat16):
        deformed = det_ops.deform_conv2d(x, shift, weight, padding=1)
    assert deformed.dtype == torch.bfloat16
    expected = det_ops.deform_conv2d(x.cpu(), shift.cpu(), weight.cpu(), padding=1)
    assert_close(deformed.float().cpu(), expected, 2e-2)


# What carries the other tests to a device


def test_the_mode_runs_operators_there_and_counts_them():
    with OnDevice("meta"), pytest.raises(NotImplementedError, match="meta tensor"):
        native("box_overlaps", *arguments("box_overlaps"))  # has no values to copy back
    given = arguments("nms")
    with OnDevice("cpu") as mode:
        assert torch.equal(native("nms", *given), reference("nms", *given))
        gradients("roi_align", "cpu")
        native("resize_bilinear", *arguments("resize_bilinear"))
        native("box_overlaps", *moved(arguments("box_overlaps"), "meta"))
    assert mode.calls == {"nms": 1, "roi_align": 1, "roi_align_backward": 1}


@pytest.mark.parametrize("change", [scattered, lambda x: x.T, lambda x: x[:, 1:], lambda x: x[:1].expand(3, -1)])
def test_a_moved_tensor_has_the_same_values_and_strides(change):
    x = change(maps(3, 4))
    (copy,) = moved((x,), "cpu")
    assert torch.equal(copy, x)
    assert copy.data_ptr() != x.data_ptr() or 0 in x.stride()
    assert copy.stride() == x.stride()
