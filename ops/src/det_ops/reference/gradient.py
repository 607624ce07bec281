"""The gradient of a reference, from autograd itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def vjp(function: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor) -> list[Tensor | None]:
    """The product of grad (shape of the function's result) with the Jacobian in each input; None for None inputs.

    Runs inside the kernel of a backward operator, where autograd is switched off for this thread: the guard switches
    it on again for the detached copies made here.
    """
    tls, key = torch._C, torch._C.DispatchKey
    off = tls._dispatch_tls_local_exclude_set()
    for autograd in (key.AutogradFunctionality, key.AutogradOther, key.AutogradNestedTensor, key.ADInplaceOrView):
        off = off.remove(autograd)
    for autocast in (key.AutocastCPU, key.AutocastCUDA):  # else matrices would be multiplied in half precision
        off = off.add(autocast)
    with tls._ForceDispatchKeyGuard(tls._dispatch_tls_local_include_set(), off), torch.enable_grad():
        leaves = [None if x is None else x.detach().requires_grad_() for x in inputs]
        present = [leaf for leaf in leaves if leaf is not None]
        result = function(*leaves)
        found: tuple[Tensor | None, ...] = (None,) * len(present)
        if result.requires_grad:  # not of no images: nothing was computed from the inputs
            found = torch.autograd.grad(result, present, grad.to(result.dtype), allow_unused=True)
        each = iter(found)
        grads = [None if leaf is None else next(each) for leaf in leaves]
    return [torch.zeros_like(x) if x is not None and g is None else g for x, g in zip(inputs, grads, strict=True)]
