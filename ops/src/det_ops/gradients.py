"""Gradients of the operators, each computed by an operator of its own, and their behaviour under autocast.

A second derivative of none of them is defined: asking for one raises.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from det_ops import service
from det_ops.operators import LIBRARY, layout_of

Context = Any

# CUDA kernels that add with atomics, so that the order of their sums is not fixed.
UNORDERED = ("roi_pool", "deform_roi_pool", "deform_psroi_pool", "deform_conv2d")


def alert_unordered(name: str, device: str) -> None:
    """Say that a gradient is not reproducible, as torch does for its own: an error, or a warning if that is asked for.

    Only where a native CUDA kernel serves; the reference is made of torch's operators, which speak for themselves.
    """
    if device != "cuda" or not torch.are_deterministic_algorithms_enabled():
        return
    if not service.native_ready(f"{name}_backward", device):
        return
    message = f"the CUDA kernel of det_ops.{name}'s gradient is not deterministic; unset DET_OPS_CUDA for the reference"
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(message)
    warnings.warn(message, UserWarning, stacklevel=3)


def _differentiable(name: str, setup: Callable[..., None]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers the decorated function as the backward of `det::<name>`, and that `<name>_backward` has none."""

    def register(backward: Callable[..., Any]) -> Callable[..., Any]:
        def once(context: Context, *grads: Tensor) -> Any:
            if name in UNORDERED:
                alert_unordered(name, grads[0].device.type)
            return backward(context, *grads)

        torch.library.register_autograd(f"det::{name}", once, setup_context=setup, lib=LIBRARY)

        def twice(context: Context, *grads: Tensor) -> None:
            raise NotImplementedError(f"det_ops.{name} has no second derivative; differentiate it once")

        torch.library.register_autograd(f"det::{name}_backward", twice, lib=LIBRARY)
        return backward

    return register


def _is_channels_last(x: Tensor) -> bool:
    return layout_of(x) is torch.channels_last


def _keep_roi_align(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, levels, _, ctx.scales, ctx.sampling, ctx.alignment, ctx.mode = inputs
    ctx.shapes = [side for maps in features for side in maps.shape]
    ctx.channels_last = _is_channels_last(features[0])
    # The gradient of an average does not depend on the features: their memory is not held for it.
    ctx.save_for_backward(rois, levels, *(features if ctx.mode == "max" else ()))


@_differentiable("roi_align", _keep_roi_align)
def _roi_align(ctx: Context, grad: Tensor) -> tuple[Any, ...]:
    rois, levels, *features = ctx.saved_tensors
    grads = torch.ops.det.roi_align_backward(
        grad,
        list(features),
        rois,
        levels,
        ctx.shapes,
        ctx.scales,
        ctx.sampling,
        ctx.alignment,
        ctx.mode,
        ctx.channels_last,
    )
    return grads, None, None, None, None, None, None, None


def _keep_roi_pool(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, rois, _, _ = inputs
    ctx.shape, ctx.channels_last = list(features.shape), _is_channels_last(features)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(rois, output[1])


@_differentiable("roi_pool", _keep_roi_pool)
def _roi_pool(ctx: Context, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    rois, positions = ctx.saved_tensors
    return torch.ops.det.roi_pool_backward(grad, positions, rois, ctx.shape, ctx.channels_last), None, None, None


def _keep_deform_roi_pool(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, offset, _, ctx.scale, ctx.sampling, ctx.gamma = inputs
    ctx.save_for_backward(features, rois, offset)


@_differentiable("deform_roi_pool", _keep_deform_roi_pool)
def _deform_roi_pool(ctx: Context, grad: Tensor) -> tuple[Any, ...]:
    features, rois, offset = ctx.saved_tensors
    maps, shift = torch.ops.det.deform_roi_pool_backward(
        grad, features, rois, offset, ctx.scale, ctx.sampling, ctx.gamma
    )
    return maps, None, None if offset is None else shift, None, None, None, None


def _keep_deform_psroi_pool(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, offset, _, ctx.scale, _, ctx.group, ctx.part, ctx.samples, ctx.gamma = inputs
    ctx.save_for_backward(features, rois, offset)


@_differentiable("deform_psroi_pool", _keep_deform_psroi_pool)
def _deform_psroi_pool(ctx: Context, grad: Tensor) -> tuple[Any, ...]:
    features, rois, offset = ctx.saved_tensors
    maps, shift = torch.ops.det.deform_psroi_pool_backward(
        grad, features, rois, offset, ctx.scale, ctx.group, ctx.part, ctx.samples, ctx.gamma
    )
    return maps, None, None if offset is None else shift, None, None, None, None, None, None, None


def _keep_deform_conv2d(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, offset, weight, mask, bias, *ctx.geometry = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(x, offset, weight, mask)


@_differentiable("deform_conv2d", _keep_deform_conv2d)
def _deform_conv2d(ctx: Context, grad: Tensor) -> tuple[Any, ...]:
    x, offset, weight, mask = ctx.saved_tensors
    grads = torch.ops.det.deform_conv2d_backward(grad, x, offset, weight, mask, *ctx.geometry)
    bias = None if ctx.bias_dtype is None else grad.sum((0, 2, 3)).to(ctx.bias_dtype)
    return *grads[:3], None if mask is None else grads[3], bias, None, None, None, None, None


def _keep_focal(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, target, weight, ctx.gamma, ctx.alpha, _ = inputs
    ctx.save_for_backward(logits, target, weight)


@_differentiable("sigmoid_focal_loss", _keep_focal)
def _sigmoid_focal_loss(ctx: Context, grad: Tensor) -> tuple[Any, ...]:
    logits, target, weight = ctx.saved_tensors
    found = torch.ops.det.sigmoid_focal_loss_backward(grad, logits, target, weight, ctx.gamma, ctx.alpha)
    return found, None, None, None, None, None


# Autocast ------------------------------------------------------------------------------------------------------------
# The convolutions take the dtype of autocast, as torch's own do: x, weight and bias are cast, offsets and masks are
# not. Every other operator takes its inputs as they are: features keep their dtype, and boxes, scores and logits are
# read in float32 or better inside, so that nothing has to be cast before.


def _autocast(name: str, cast: tuple[int, ...], device: str, key: str) -> None:
    """Under autocast on a device, cast the floating-point arguments at these positions, then call again without it."""
    call = getattr(torch.ops.det, name).default

    def kernel(*arguments: Any) -> Any:
        dtype = torch.get_autocast_dtype(device)
        given = list(arguments)
        for position in cast:
            if isinstance(given[position], Tensor) and given[position].dtype != torch.float64:
                given[position] = given[position].to(dtype)
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))):
            return call(*given)

    LIBRARY.impl(name, kernel, key)


for _device, _key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):
    _autocast("deform_conv2d", (0, 2, 4), _device, _key)
    _autocast("masked_conv2d", (0, 2, 3), _device, _key)
