"""What the benchmarks share: times taken in turns, peak memory, and the time of the heavy arithmetic alone."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

Call = Callable[[], object]

aten = torch.ops.aten
HEAVY = {
    aten.convolution.default,
    aten.convolution_backward.default,
    aten.addmm.default,
    aten.mm.default,
    aten.bmm.default,
}


def seconds(call: Call, device: str = "cpu") -> float:
    """Of one call, until the device has finished."""
    started = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def in_turns(calls: list[Call], rounds: int, device: str = "cpu") -> list[float]:
    """Least seconds of each call over so many rounds, taken in turns so that a busy moment hits all alike.

    In its turn a call runs twice and the second time counts, as in work that goes on and on: what the others left in
    the caches, and memory that they gave back to the system, are none of its own.
    """

    def turn(call: Call) -> float:
        seconds(call, device)
        return seconds(call, device)

    return [min(row) for row in zip(*([turn(c) for c in calls] for _ in range(rounds)), strict=True)]


def keep_memory() -> None:
    """Tell glibc to keep what it is given back, and to take large blocks from there too; SystemExit without glibc."""
    library = ctypes.CDLL(None)
    settings = {-1: 2**31 - 1, -4: 0}  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    if not hasattr(library, "mallopt") or not all(library.mallopt(*setting) for setting in settings.items()):
        raise SystemExit("--keep-memory needs the GNU C library, whose malloc can be told so; leave it out")


def peak(call: Call, device: str = "cpu") -> float:
    """Megabytes that a call holds at its peak on top of what was there; NaN where the system does not tell."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    if sys.platform != "linux":
        return float("nan")
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _resident("VmRSS")
    call()
    return (_resident("VmHWM") - before) / 1e3


def _resident(name: str) -> float:
    """Kilobytes, as Linux counts them."""
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return float(found.group(1)) if found else float("nan")


class HeavyCalls(TorchDispatchMode):
    """Keeps the arguments of every convolution and matrix product, backward ones included, to run them again alone."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in HEAVY:
            self.calls.append((func, *tree_map_only(Tensor, Tensor.detach, (args, kwargs or {}))))
        return func(*args, **(kwargs or {}))

    @torch.no_grad()
    def replay(self) -> None:
        """All of them again, in order, results dropped."""
        for func, args, kwargs in self.calls:
            func(*args, **kwargs)


def heavy_calls(call: Call) -> HeavyCalls:
    """The convolutions and matrix products of a call."""
    mode = HeavyCalls()
    with mode:
        call()
    return mode
