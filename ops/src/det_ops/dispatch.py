"""Selects the implementation of an operator: the native kernel, else torchvision if it agrees, else the reference."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from det_ops import libraries, native
from det_ops.native import settings


@dataclass(frozen=True)
class OpStatus:
    """Which implementation runs an operator, and how to get a faster one; `remedy` is empty if nothing is wrong."""

    name: str
    served_by: str
    remedy: str = ""


@dataclass(frozen=True)
class Fallbacks:
    """The Python implementations of an operator.

    Args:
        reference: The definition. It takes the arguments of the operator.
        torchvision: Takes `torchvision.ops`, then the arguments of the operator. It returns None for arguments that
            torchvision does not support.
    """

    reference: Callable[..., Any]
    torchvision: Callable[..., Any] | None = None


# By name of the operator. `det_ops.registration` fills it.
FALLBACKS: dict[str, Fallbacks] = {}
# Where a native library is from, in the words of `OpStatus.served_by`. "process": other code loaded it.
_ORIGINS: dict[native.Origin, str] = {
    "": "built at first use",
    "build": "compiled here",
    "cache": "compiled here",
    "prebuilt": "prebuilt",
    "process": "loaded before",
}
# The attribute `name` is the operator that this thread is calling again in search of a native kernel.
_redispatch = threading.local()


def call(name: str, *arguments: Any) -> Any:
    """The kernel of every operator without a native one: loads the native library and calls the operator again.

    If the second call arrives here too, the library has no such kernel for the device, and the fallback runs.
    """
    if getattr(_redispatch, "name", "") != name and native_loaded(_device_of(arguments)):
        _redispatch.name = name
        try:
            return getattr(torch.ops.det, name).default(*arguments)
        finally:
            _redispatch.name = ""
    return call_fallback(name, *arguments)


def call_fallback(name: str, *arguments: Any) -> Any:
    """torchvision's implementation of an operator if it has one for these arguments, else the reference."""
    fallbacks, result = FALLBACKS[name], None
    if fallbacks.torchvision is not None and (peer := torchvision_ops()) is not None:
        result = fallbacks.torchvision(peer, *arguments)
    return fallbacks.reference(*arguments) if result is None else result


def _device_of(arguments: Sequence[Any]) -> str:
    """The device of the first tensor, or of the first of a list of tensors."""
    for argument in arguments:
        first = argument[0] if isinstance(argument, list) and argument else argument
        if isinstance(first, Tensor):
            return first.device.type
    return "cpu"


@cache
def torchvision_ops() -> ModuleType | None:
    """torchvision's operators, or None if torchvision is not installed or does not match this torch."""
    try:
        import torchvision.ops
    except Exception:  # a torchvision built for another torch can raise anything; the reference must still work
        return None
    return torchvision.ops


def native_loaded(device: str) -> bool:
    """Whether the native library of this device is loaded; loads, and if necessary builds, it first."""
    library = _library(device)
    if library is None:
        return False
    outcome = native.load(library)
    native.warn_once(outcome)
    return outcome.loaded


def _library(device: str) -> native.NativeLibrary | None:
    """The library of a device. CUDA kernels are opt-in until their tests have passed on a GPU."""
    if device == "cpu":
        return libraries.CPU
    return libraries.CUDA if device == "cuda" and settings.cuda_enabled() else None


def status(device: str = "cpu") -> list[OpStatus]:
    """Lists which implementation runs each operator on a device ("cpu" or "cuda"); builds and loads nothing."""
    served, remedy = _native_status(device)
    public = [name for name in FALLBACKS if not name.endswith("_backward")]
    return [OpStatus(name, served or _fallback_name(name), remedy) for name in public]


def _native_status(device: str) -> tuple[str, str]:
    """What the native library of a device will serve with; or an empty string and what to do about it."""
    library = _library(device)
    if library is None:
        return "", "" if device == "cuda" else f"there are no native kernels for {device}"
    outcome = native.peek(library)
    if outcome.switched_off:
        return "", ""
    if outcome.reason:
        return "", f"{outcome.reason}; {outcome.remedy}"
    return f"native ({_ORIGINS[outcome.origin]})", ""


def _fallback_name(name: str) -> str:
    agrees = FALLBACKS[name].torchvision is not None and torchvision_ops() is not None
    return "torchvision" if agrees else "reference (plain PyTorch)"
