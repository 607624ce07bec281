"""The gradient of a reference implementation, computed by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from det_ops.memory_format import memory_format_of
from det_ops.reference.precision import full
from det_ops.torch_internals import call_with_autograd


def vjp(function: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor) -> list[Tensor]:
    """The product of grad (shape of the function's result) with the Jacobian in each input; see `as_gradients`.

    The function receives the inputs in the precision of the computation, so that sums are rounded once. For use in the
    kernel of a backward operator, where autograd is disabled.
    """

    def differentiate() -> list[Tensor | None]:
        leaves = [None if x is None else full(x).detach().requires_grad_() for x in inputs]
        present = [leaf for leaf in leaves if leaf is not None]
        result = function(*leaves)
        found: tuple[Tensor | None, ...] = (None,) * len(present)
        if result.requires_grad:  # a result without images does not depend on the inputs
            found = torch.autograd.grad(result, present, grad.to(result.dtype), allow_unused=True)
        each = iter(found)
        return [None if leaf is None else next(each) for leaf in leaves]

    return as_gradients(call_with_autograd(differentiate, grad.device), inputs)


def as_gradients(grads: Sequence[Tensor | None], inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Gradients (...) as backward operators return them: in the dtype of each input, zeros if independent of it.

    The first is in the memory format of its input, the others are contiguous. An input after the first that is None
    has an empty gradient, since an operator cannot return None.
    """
    results: list[Tensor] = []
    for grad, x in zip(grads, inputs, strict=True):
        if x is None:
            results.append(results[0].new_empty(0))
        else:
            memory_format = torch.contiguous_format if results else memory_format_of(x)
            found = torch.zeros_like(x) if grad is None else grad.to(x.dtype)
            results.append(found.contiguous(memory_format=memory_format))
    return results
