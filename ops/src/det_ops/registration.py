"""Registers operators with torch under the namespace `det`.

A native library registers its kernels under the same names for its own device. Until it is loaded, or where there is
none, `det_ops.dispatch` calls the fallbacks that are registered here. Callers, compiled code and exported graphs
therefore never change.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from det_ops import dispatch
from det_ops.memory_format import empty_maps
from det_ops.reference.gradient import vjp
from det_ops.torch_internals import without_autocast

LIBRARY = torch.library.Library("det", "DEF")
# By annotation of the reference, which is a string. The native kernels are registered for plain integers, not for the
# symbolic ones of torch.library.infer_schema.
SCHEMA_TYPES = {
    **{name: name for name in ("Tensor", "int", "float", "bool", "str")},
    "Tensor | None": "Tensor?",
    "list[Tensor]": "Tensor[]",
    "Sequence[Tensor]": "Tensor[]",
    "Sequence[int]": "int[]",
    "Sequence[float]": "float[]",
    "tuple[Tensor, Tensor]": "(Tensor, Tensor)",
}
# Operators whose CUDA gradient adds with atomics, so that the order of its sums is not fixed.
UNORDERED: list[str] = []

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def operator(
    name: str,
    reference: Callable[Arguments, Result],
    *,
    fake: Callable[..., Any],
    torchvision: Callable[..., Any] | None = None,
    autocast: Sequence[str] = (),
    flops: Callable[..., int] | None = None,
) -> Callable[Arguments, Result]:
    """Registers and returns the operator `det::<name>`, whose schema is the signature of its reference.

    Operators do not modify their inputs and do not return views of them.

    Args:
        name: The name of the operator.
        reference: The definition of the operator in plain PyTorch.
        fake: Takes the same arguments and returns empty results of the right shape, dtype and strides, for tracing.
        torchvision: See `det_ops.dispatch.Fallbacks`.
        autocast: Arguments to cast to the dtype of autocast. All others keep their dtype: features are read as they
            are, and boxes, scores and logits are computed in float32 or better.
        flops: The formula for `torch.utils.flop_counter`: takes shapes in place of tensors. As in torch, a product
            that is summed counts two, and interpolation and other elementwise work counts nothing.
    """
    arguments = _schema_arguments(reference)
    schema = f"({', '.join(arguments.values())}) -> {SCHEMA_TYPES[reference.__annotations__['return']]}"
    call = _define(name, schema, dispatch.Fallbacks(reference, torchvision), fake, flops)
    if autocast:
        positions = [list(arguments).index(argument) for argument in autocast]
        for device in ("cpu", "cuda"):
            LIBRARY.impl(name, partial(_call_with_casts, call, device, positions), f"Autocast{device.upper()}")
    return cast(Callable[Arguments, Result], call)


def _schema_arguments(function: Callable[..., Any]) -> dict[str, str]:
    """The arguments of a typed function as they are written in a schema, by name."""
    annotations = function.__annotations__
    return {name: f"{SCHEMA_TYPES[text]} {name}" for name, text in annotations.items() if name != "return"}


def _define(
    name: str,
    schema: str,
    fallbacks: dispatch.Fallbacks,
    fake: Callable[..., Any],
    flops: Callable[..., int] | None,
) -> Callable[..., Any]:
    LIBRARY.define(name + schema)
    dispatch.FALLBACKS[name] = fallbacks
    LIBRARY.impl(name, partial(dispatch.call, name), "CompositeExplicitAutograd")
    torch.library.register_fake(f"det::{name}", fake, lib=LIBRARY)
    packet = getattr(torch.ops.det, name)
    if flops is not None:
        register_flop_formula(packet)(flops)
    return packet.default


def _call_with_casts(call: Callable[..., Any], device: str, positions: Sequence[int], *arguments: Any) -> Any:
    """Calls an operator without autocast, with the floating-point arguments at these positions cast to its dtype."""
    given = list(arguments)
    for position in positions:
        if isinstance(given[position], Tensor) and given[position].dtype != torch.float64:
            given[position] = given[position].to(torch.get_autocast_dtype(device))
    with without_autocast(device):
        return call(*given)


def gradient(
    name: str, *, save: Callable[[tuple[Any, ...], Any], Sequence[Any]], unordered: bool = False
) -> Callable[[Callable[..., tuple[Any, ...]]], Callable[..., tuple[Any, ...]]]:
    """Registers the decorated function as the gradient of `det::<name>`. A second derivative raises an error.

    The function receives the gradient of the first output, then what `save` returned. It returns the gradients of the
    leading inputs, with None for those that have none; the remaining inputs get None.

    Args:
        name: The name of the operator. The gradient is computed by the operator `<name>_backward`.
        save: Takes the inputs and the output of the operator, and returns the values that the gradient needs.
        unordered: Whether the native CUDA kernel of the gradient is not deterministic.
    """
    if unordered:
        UNORDERED.append(name)

    def register(function: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            saved = save(inputs, output)
            ctx.input_count = len(inputs)
            ctx.save_for_backward(*(value for value in saved if isinstance(value, Tensor)))
            ctx.constants = [None if isinstance(value, Tensor) else (value,) for value in saved]
            outputs = output if isinstance(output, tuple) else (output,)
            ctx.mark_non_differentiable(*(value for value in outputs if not value.is_floating_point()))

        def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
            if unordered:
                alert_not_deterministic(name, grad.device.type)
            tensors = iter(ctx.saved_tensors)
            grads = function(grad, *(next(tensors) if value is None else value[0] for value in ctx.constants))
            return (*grads, *[None] * (ctx.input_count - len(grads)))

        def second_derivative(ctx: Any, *grads: Tensor) -> None:
            raise NotImplementedError(f"det_ops.{name} has no second derivative; differentiate it once")

        torch.library.register_autograd(f"det::{name}", backward, setup_context=setup_context, lib=LIBRARY)
        torch.library.register_autograd(f"det::{name}_backward", second_derivative, lib=LIBRARY)
        return function

    return register


def derivative(
    name: str,
    *,
    of: Sequence[str],
    omitted: Mapping[str, Callable[[Tensor], Any]],
    sums: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({}),
    torchvision: Callable[..., Any] | None = None,
    flops: Callable[..., int] | None = None,
    unordered: bool = False,
) -> None:
    """Registers the operator `det::<name>_backward`, and makes it the gradient of `det::<name>`.

    Its reference is the gradient of the reference of `det::<name>`. Its arguments are the gradient of the result, then
    those of `det::<name>` except the omitted ones. Its results are the gradients (...) of the arguments `of`, empty for
    an argument that is None.

    Args:
        name: The name of an operator with one result.
        of: The arguments that it is differentiable in, features first.
        omitted: Arguments that `<name>_backward` does not have, each with a function of the gradient that restores it.
        sums: Arguments whose gradients are functions of the gradient of the result alone.
        torchvision, flops: as in `operator`.
        unordered: as in `gradient`.
    """
    reference = dispatch.FALLBACKS[name].reference
    arguments = _schema_arguments(reference)
    kept = [argument for argument in arguments if argument not in omitted]
    results = ", ".join(["Tensor"] * len(of))

    def reference_backward(grad: Tensor, *values: Any) -> Any:
        given = dict(zip(kept, values, strict=True)) | {each: restore(grad) for each, restore in omitted.items()}

        def forward(*inputs: Tensor | None) -> Tensor:
            return reference(**{**given, **dict(zip(of, inputs, strict=True))})

        grads = vjp(forward, [given[argument] for argument in of], grad)
        return tuple(grads) if len(of) > 1 else grads[0]

    def fake(grad: Tensor, *values: Any) -> Any:
        first, *others = (values[kept.index(argument)] for argument in of)
        empty = (first.new_empty(0) if x is None else x.new_empty(x.shape) for x in others)
        return (empty_maps(first, first.shape), *empty) if others else empty_maps(first, first.shape)

    schema = f"(Tensor grad, {', '.join(arguments[argument] for argument in kept)}) -> ({results})"
    fallbacks = dispatch.Fallbacks(reference_backward, torchvision)
    call = _define(f"{name}_backward", schema, fallbacks, fake, flops)

    names = list(arguments)
    kept_positions = [names.index(argument) for argument in kept]
    gradient_positions = [(names.index(argument), kept.index(argument)) for argument in of]

    def save(inputs: tuple[Any, ...], output: Tensor) -> tuple[Any, ...]:
        summed = [inputs[names.index(argument)] for argument in sums]
        dtypes = [None if x is None else x.dtype for x in summed]
        return dtypes, *(inputs[position] for position in kept_positions)

    @gradient(name, save=save, unordered=unordered)
    def gradients(grad: Tensor, dtypes: list[torch.dtype | None], *values: Any) -> tuple[Any, ...]:
        found = call(grad, *values)
        grads: list[Tensor | None] = [None] * len(names)
        for x, (position, kept_position) in zip(found if len(of) > 1 else [found], gradient_positions, strict=True):
            grads[position] = None if values[kept_position] is None else x
        for (argument, formula), dtype in zip(sums.items(), dtypes, strict=True):
            grads[names.index(argument)] = None if dtype is None else formula(grad).to(dtype)
        return tuple(grads)


def alert_not_deterministic(name: str, device: str) -> None:
    """Raises or warns, as torch does for its own operators, if deterministic algorithms are required.

    Only for native CUDA kernels: the reference consists of torch's operators, which raise their own alerts.
    """
    if device != "cuda" or not torch.are_deterministic_algorithms_enabled() or not dispatch.native_loaded(device):
        return
    message = f"the CUDA kernel of det_ops.{name}'s gradient is not deterministic; unset DET_OPS_CUDA for the reference"
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(message)
    warnings.warn(message, UserWarning, stacklevel=3)


def unknown_length() -> Any:
    """In a fake function: a length that depends on the data."""
    return torch.library.get_ctx().new_dynamic_size()
