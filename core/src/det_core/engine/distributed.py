"""One process or many: what a rank knows of the others, and the few things it says to them.

Runs are started by `torchrun`, on one node or several; without it there is one rank.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from attrs import frozen
from torch import Tensor

from det_core.errors import DetError
from det_core.structures import LossTerm

T = TypeVar("T")


@frozen
class World:
    """This rank among `size`, and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this rank writes files and speaks to the user."""
        return self.rank == 0


def join(device: str | None = None) -> World:
    """Join the process group that torchrun announces in the environment, or be alone.

    device: `cpu`, `cuda`, `cuda:1`, `mps`; by default the GPU of this rank where there is one.

    Raises DetError for a device that is not there.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return World(rank, size, chosen)


def choose_device(device: str | None) -> torch.device:
    """The named device, or the best there is; DetError if it is not there."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise DetError(f"unknown device {device!r}; allowed: cpu, cuda, cuda:N, mps") from None
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise DetError(f"device {device!r} is not supported; allowed: cpu, cuda, cuda:N, mps")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise DetError("device 'mps' was asked for, but torch sees no Apple GPU (`det-core doctor` says more)")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DetError(f"device {device!r} was asked for, but torch sees no GPU (`det-core doctor` says more)")
    if chosen.type != "cuda":
        return chosen
    index = int(os.environ.get("LOCAL_RANK", "0")) if device == "cuda" else chosen.index
    if index >= torch.cuda.device_count():
        raise DetError(f"GPU {index} was asked for, but there are {torch.cuda.device_count()}")
    return torch.device("cuda", index)


def leave() -> None:
    """Leave the process group, if in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def gather(value: T, world: World) -> list[T]:
    """Every rank's value, on every rank, in rank order."""
    if world.size == 1:
        return [value]
    values: list[T | None] = [None] * world.size
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def barrier(world: World) -> None:
    """Wait for all ranks."""
    if world.size > 1:
        dist.barrier()


@frozen(eq=False)
class GlobalLosses:
    """A step's losses over all ranks.

    backward: () what this rank differentiates: its totals over the global counts, times the number of ranks, because
    averaging of gradients divides by it. values: each global loss as a number. stop: whether a rank asks to stop.
    """

    backward: Tensor
    values: dict[str, float]
    stop: bool

    @property
    def total(self) -> float:
        return sum(self.values.values())


def _like(totals: Tensor, count: Tensor | float) -> Tensor:
    return count.to(totals) if isinstance(count, Tensor) else totals.new_tensor(count)


def reduce_losses(terms: Mapping[str, LossTerm], world: World, *, stop: bool = False) -> GlobalLosses:
    """Divide every loss by its count over all ranks: one collective carries counts, totals and the wish to stop.

    On one process this is `LossTerm.value` of each. Totals and counts travel as float64, so that sums do not depend
    on how a batch is spread.
    """
    totals = torch.stack([t.total.detach() for t in terms.values()])
    totals = totals if totals.device.type == "mps" else totals.double()  # Apple's GPUs have no float64
    counts = torch.stack([_like(totals, t.count) for t in terms.values()])
    packed = torch.cat([totals, counts, totals.new_tensor([float(stop)])])
    if world.size > 1:
        dist.all_reduce(packed)
    numbers = packed.tolist()
    n = len(terms)
    divisors = [max(c, 1.0) for c in numbers[n : 2 * n]]
    backward = torch.stack([t.total * (world.size / d) for t, d in zip(terms.values(), divisors, strict=True)]).sum()
    values = {name: numbers[i] / divisors[i] for i, name in enumerate(terms)}
    return GlobalLosses(backward, values, numbers[-1] > 0)
