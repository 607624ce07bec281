"""Every private name of torch and torchvision that det-ops uses, each with what happens if a release removes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


@contextmanager
def without_autocast(device: str) -> Iterator[None]:
    """In an autocast kernel: operators called in this context skip autocast on the device ("cpu" or "cuda").

    Without the private guard, `torch.autocast(enabled=False)` does the same, but takes longer.
    """
    try:
        key = getattr(torch._C.DispatchKey, f"Autocast{device.upper()}")
        guard: Any = torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key))
    except AttributeError:
        guard = torch.autocast(device, enabled=False)
    with guard:
        yield


def call_with_autograd(function: Callable[[], Result], device: torch.device) -> Result:
    """Calls a function with autograd enabled and autocast disabled, inside a kernel of a backward operator.

    torch excludes autograd from dispatch in the thread that runs such a kernel. Without the private names that include
    it again, the function runs in a new thread, where nothing is excluded, on the current stream of the device.
    """
    try:
        key = torch._C.DispatchKey
        excluded = torch._C._dispatch_tls_local_exclude_set()
        for name in ("AutogradFunctionality", "AutogradOther", "AutogradNestedTensor", "ADInplaceOrView"):
            excluded = excluded.remove(getattr(key, name))
        for name in ("AutocastCPU", "AutocastCUDA"):  # otherwise matrices would be multiplied in half precision
            excluded = excluded.add(getattr(key, name))
        guard = torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded)
    except AttributeError:
        return _call_in_thread(function, device)
    with guard, torch.enable_grad():
        return function()


def _call_in_thread(function: Callable[[], Result], device: torch.device) -> Result:
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None

    def run() -> Result:
        with torch.cuda.stream(stream):  # does nothing if stream is None
            return function()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def torchvision_gradient(name: str) -> Callable[..., Any] | None:
    """The operator `_<name>_backward` of torchvision, which must be imported; None if there is none.

    Without it, the gradient is that of the reference.
    """
    return getattr(torch.ops.torchvision, f"_{name}_backward", None)
