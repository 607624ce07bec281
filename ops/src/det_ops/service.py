"""Who serves an operator: the native kernel, else torchvision where the definitions agree, else the reference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch

from det_ops import libraries, native
from det_ops.native import settings

# What torchvision can stand in for; its backward of deform_conv2d has another slope on the border.
TORCHVISION = ("nms", "batched_nms", "nms_padded", "roi_align", "deform_conv2d")


@dataclass(frozen=True)
class OpStatus:
    """Who serves an operator, and what would make it faster. remedy is empty where nothing is amiss."""

    name: str
    served_by: str
    remedy: str = ""


@cache
def torchvision_ops() -> ModuleType | None:
    """torchvision's operators, or None where torchvision is missing or does not fit the torch that runs."""
    try:
        import torchvision.ops
    except Exception:  # a torchvision built for another torch fails in many ways: none may cost the reference
        return None
    return torchvision.ops


def native_ready(name: str, device: str) -> bool:
    """Whether a native kernel serves this operator on this device, after loading (building) its library if need be."""
    library = _library(device)
    if library is None:
        return False
    outcome = native.load(library)
    if not outcome.loaded:
        native.warn_once(outcome)
        return False
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"det::{name}", device.upper()))


def _library(device: str) -> native.NativeLibrary | None:
    """The library for a device; CUDA kernels are opt-in until their tests have passed on a GPU."""
    if device == "cpu":
        return libraries.CPU
    return libraries.CUDA if device == "cuda" and settings.cuda_wanted() else None


def status(device: str = "cpu") -> list[OpStatus]:
    """Who serves each operator on a device ("cpu" or "cuda"), without building or loading anything."""
    from det_ops.operators import NAMES  # here, since the operators ask this module who serves them

    served, remedy = _native_status(device)
    public = [name for name in NAMES if not name.endswith("_backward")]
    return [OpStatus(name, served or _fallback(name), remedy) for name in public]


def _native_status(device: str) -> tuple[str, str]:
    """What the native library of a device will serve with, or nothing and what to do about it."""
    library = _library(device)
    if library is None:
        return "", "" if device == "cuda" else f"there are no native kernels for {device}"
    outcome = native.peek(library)
    if outcome.switched_off:
        return "", ""
    if outcome.reason:
        return "", f"{outcome.reason}; {outcome.remedy}"
    return ("native" if outcome.path else "native (built at first use)"), ""


def _fallback(name: str) -> str:
    return "torchvision" if name in TORCHVISION and torchvision_ops() is not None else "reference (plain PyTorch)"
