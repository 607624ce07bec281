"""The private names of torch that core and the plugins use, each with a fallback.

torch may rename them in any release. Each is behind a function that still returns a correct result without it, only
slower. Letters: N images, O output and C input channels, H W size, kh kw kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

# Operators of torch.ops.mkldnn, which torch.compile uses.
PACK = "_reorder_convolution_weight"
CONVOLVE = "_convolution_pointwise"
BF16 = "_is_avx512_bf16_supported"
# Attributes of modules and of tensors.
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
COMPILED = "_compiled_call_impl"
VERSION = "_version"
COPY_ALL = "_foreach_copy_"  # of torch


def packing_available() -> bool:
    """Whether this torch uses oneDNN and has its operators for convolutions with packed weights."""
    has = all(hasattr(torch.ops.mkldnn, name) for name in (PACK, CONVOLVE))
    return has and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


@cache
def computes_in_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16 (AVX512-BF16 or AMX). False if this torch cannot say."""
    known: Any = getattr(torch.cpu, "get_capabilities", dict)()
    if known:
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    ask: Any = getattr(torch.cpu, BF16, bool)
    return bool(ask())


def pack_weight(weight: Tensor, conv: nn.Conv2d, input_size: Sequence[int]) -> Tensor:
    """Weights (O, C, kh, kw) in oneDNN's layout for inputs of this size. Requires `packing_available`."""
    settings = (conv.padding, conv.stride, conv.dilation, conv.groups)
    packed: Tensor = getattr(torch.ops.mkldnn, PACK)(weight, *settings, list(input_size))
    return packed


def convolve_packed(
    conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, x: Tensor, *, add: Tensor | None, relu: bool
) -> Tensor:
    """Convolution of `x` (N, C, H, W) with packed weights, sum with `add` and ReLU in one pass.

    Requires `packing_available`.
    """
    if bias is not None and add is not None:
        bias = bias.to(weight.dtype)  # with a sum the operator does not take another one
    settings = (weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups)
    convolve: Any = getattr(torch.ops.mkldnn, CONVOLVE)
    out: Tensor
    if add is None:
        out = convolve(x, *settings, "relu" if relu else "none", [], None)
    else:
        out = convolve(x, add, *settings, "add", 1.0, "relu" if relu else None, [], None)
    return out


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks are registered on a module. True if this torch has no such attribute."""
    return any(getattr(module, name, True) for name in HOOKS)


def is_compiled(module: nn.Module) -> bool:
    """Whether `module.compile()` was called. True if this torch has no such attribute."""
    return getattr(module, COMPILED, True) is not None


def copy_all(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy values (...) into as many targets (...); on a GPU in one call, if this torch has it."""
    together: Any = getattr(torch, COPY_ALL, None)
    if together is not None:
        together(list(targets), list(values))
        return
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


@contextmanager
def any_size() -> Iterator[None]:
    """Inside, `torch.export` assumes of no symbolic size that it is above 1. Without the private setting, it does, and
    programs refuse images so small that a level has one row or column.
    """
    try:
        from torch.fx.experimental import _config

        patch: Any = _config.patch  # type: ignore[attr-defined]
        setting: Any = patch(backed_size_oblivious=True)
    except (ImportError, AttributeError):
        setting = nullcontext()
    with setting:
        yield


def state_of(tensor: Tensor) -> object:
    """A value that changes when a tensor (...) is modified in place or its memory is replaced.

    If the tensor has no version counter, the value is unequal to every other, so the tensor always counts as modified.
    """
    version = None if tensor.is_inference() else getattr(tensor, VERSION, None)
    return object() if version is None else (version, tensor.data_ptr(), tensor.dtype, tensor.device)
