"""Runs the operators that tests call on a device: arguments are copied there and results back.

The tests and the references that they compare with stay on the CPU.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

# Images and run-length codes are read and written on the CPU; on a GPU the definition serves.
CPU_ONLY = {"mask_targets", "paste_mask_codes", "resize_bilinear", "adjust_colors", "try_crops"}


def moved(value: Any, device: str) -> Any:
    """The same value with its tensors on the device, in the same strides where these do not overlap."""

    def move(x: Tensor) -> Tensor:
        if any(stride == 0 and side > 1 for side, stride in zip(x.shape, x.stride(), strict=True)):
            return x.to(device)
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device).copy_(x)

    return pytree.tree_map_only(Tensor, move, value)


class OnDevice(TorchDispatchMode):
    """While entered, operators of this package that get tensors of the CPU run on the device.

    Operators without a kernel for GPUs stay on the CPU; so do fake tensors, and arguments that are on the device
    already. `calls` counts what ran there.
    """

    def __init__(self, device: str, namespace: str = "det") -> None:
        super().__init__()
        self.device = device
        self.namespace = namespace
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("det::")
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        here = all(x.device.type == "cpu" and not isinstance(x, FakeTensor) for x in tensors)
        if func.namespace != "det" or name in CPU_ONLY or not here:
            return func(*args, **(kwargs or {}))
        self.calls[name] += 1
        kernel = getattr(getattr(torch.ops, self.namespace), name).default
        return moved(kernel(*moved(args, self.device), **moved(kwargs or {}, self.device)), "cpu")
