"""Enlarges boxes for the box branch: an operator with a native kernel, built at first use if possible.

Letters: n boxes, xyxy.
"""

from __future__ import annotations

from pathlib import Path

import torch
from det_ops.native import NativeLibrary, load, warn_once
from torch import Tensor

LIBRARY = NativeLibrary(
    "double_head",
    sources=(Path(__file__).parent / "csrc" / "windows.cpp",),
    flags=("-std=c++17", "-O3", "-DTORCH_TARGET_VERSION=0x020b000000000000"),
)
_schemas = torch.library.Library("double_head", "DEF")
_schemas.define("enlarge(Tensor boxes, float factor) -> Tensor")


def plain(boxes: Tensor, factor: float) -> Tensor:
    """The definition, for boxes (n, 4) on any device."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (factor / 2)
    return torch.cat([centre - half, centre + half], 1)


def _without_a_kernel(boxes: Tensor, factor: float) -> Tensor:
    """Runs if no kernel is registered for boxes (n, 4): builds and loads the library, or uses `plain`."""
    if boxes.device.type == "cpu":
        outcome = load(LIBRARY)
        if outcome.loaded:
            return enlarge(boxes, factor)
        warn_once(outcome)
    return plain(boxes, factor)


_schemas.impl("enlarge", _without_a_kernel, "CompositeExplicitAutograd")
torch.library.register_fake("double_head::enlarge", lambda boxes, factor: torch.empty_like(boxes), lib=_schemas)


def enlarge(boxes: Tensor, factor: float) -> Tensor:
    """Boxes (n, 4) with sides `factor` times as long and the same centres. They may extend outside the image."""
    if boxes.dtype not in (torch.float32, torch.float64):
        return plain(boxes, factor)
    result: Tensor = torch.ops.double_head.enlarge(boxes.detach(), factor)
    return result
