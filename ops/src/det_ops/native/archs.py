"""GPU architectures: which to compile for, and which devices a built library supports."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import torch

from det_ops.native.outcome import CannotBuild


@dataclass(frozen=True)
class Archs:
    """The required architectures: TORCH_CUDA_ARCH_LIST by name, else the visible devices; both empty for the CPU.

    Args:
        names: such as "9.0" or "8.0+PTX".
        devices: compute capabilities.
    """

    names: tuple[str, ...] = ()
    devices: tuple[tuple[int, int], ...] = ()

    def to_build(self) -> str:
        """The architectures to compile for, in torch's format.

        Raises:
            CannotBuild: if no GPU is visible and no list is set.
        """
        names = self.names or tuple(f"{major}.{minor}" for major, minor in self.devices)
        if not names:
            remedy = "make a GPU visible, or set TORCH_CUDA_ARCH_LIST, for instance to 8.0;9.0"
            raise CannotBuild("no GPU is visible and TORCH_CUDA_ARCH_LIST is not set", remedy)
        return ";".join(names)

    def covered_by(self, built: str) -> bool:
        """Whether a library built for this list, or for more architectures, can be used."""
        has = built.split(";")
        return set(self.names) <= set(has) and all(any(_runs_on(arch, d) for arch in has) for d in self.devices)


def required(cuda: bool) -> Archs:
    """The architectures that this process requires; none without a GPU and a list."""
    if not cuda:
        return Archs()
    text = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(" ", ";")
    names = sorted({name for name in text.split(";") if name})
    if names and names != ["native"]:
        return Archs(names=tuple(names))
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Archs(devices=tuple(sorted({torch.cuda.get_device_capability(i) for i in range(count)})))


def _runs_on(arch: str, device: tuple[int, int]) -> bool:
    """Machine code runs on the same major and an equal or newer minor version, PTX on all newer, 9.0a on 9.0 only."""
    parts = re.fullmatch(r"(\d+)\.(\d+)([a-z]?)(\+PTX)?", arch)
    if parts is None:
        return False  # names such as Hopper are unknown here, so the library is rebuilt
    version = (int(parts[1]), int(parts[2]))
    if parts[3]:
        return version == device
    return version <= device and (version[0] == device[0] or parts[4] is not None)
