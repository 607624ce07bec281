"""Every private name of torch that core and the plugins use, and what happens where a torch does not have it.

torch may rename these in any release, and there is no upper bound on its version: so each stands here alone, behind a
function that gives the right result without it, only slower. Letters: O output and C input channels, kh kw kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

PACK = "_reorder_convolution_weight"  # of torch.ops.mkldnn, as is the next; torch's compiler uses both
CONVOLVE = "_convolution_pointwise"
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")  # of a module
COMPILED = "_compiled_call_impl"  # of a module
VERSION = "_version"  # of a tensor


def packing_available() -> bool:
    """Whether this torch computes convolutions with oneDNN and has its operators for packed weights.

    False where the operators are gone: convolutions are then torch's ordinary ones.
    """
    has = all(hasattr(torch.ops.mkldnn, name) for name in (PACK, CONVOLVE))
    return has and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def pack_weight(weight: Tensor, conv: nn.Conv2d, input_size: Sequence[int]) -> Tensor:
    """Weights (O, C, kh, kw) in the layout that oneDNN computes in for inputs of this size; see `packing_available`."""
    settings = (conv.padding, conv.stride, conv.dilation, conv.groups)
    packed: Tensor = getattr(torch.ops.mkldnn, PACK)(weight, *settings, list(input_size))
    return packed


def convolve_packed(
    conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, x: Tensor, *, add: Tensor | None, relu: bool
) -> Tensor:
    """The convolution with packed weights, the sum with `add` and the ReLU, in one pass; see `packing_available`."""
    settings = (weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups)
    convolve: Any = getattr(torch.ops.mkldnn, CONVOLVE)
    out: Tensor
    if add is None:
        out = convolve(x, *settings, "relu" if relu else "none", [], None)
    else:
        out = convolve(x, add, *settings, "add", 1.0, "relu" if relu else None, [], None)
    return out


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks watch a module, which need its own input and output. True where a torch does not say."""
    return any(getattr(module, name, True) for name in HOOKS)


def is_compiled(module: nn.Module) -> bool:
    """Whether `module.compile()` was called. True where a torch does not say."""
    return getattr(module, COMPILED, True) is not None


def state_of(tensor: Tensor) -> object:
    """A value that differs once a tensor was changed in place, or holds other memory.

    Where a torch does not count changes, it differs from every other, so that nothing is taken to be as it was.
    """
    version = None if tensor.is_inference() else getattr(tensor, VERSION, None)
    return object() if version is None else (version, tensor.data_ptr(), tensor.dtype, tensor.device)
