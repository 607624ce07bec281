"""Ranks and their communication. `torchrun` starts several ranks, on one node or more; without it there is one."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from attrs import field, frozen
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from det_core.engine.rank_watch import PATIENCE, RankWatch
from det_core.errors import DetError
from det_core.specs import TIMEOUT
from det_core.structures import LossTerm

T = TypeVar("T")

log = logging.getLogger(__name__)


@frozen
class World:
    """The rank of this process, the number of ranks, and the device of this rank.

    timeout: seconds that this rank waits for others, and for its loader processes. watch: if there are other ranks.
    """

    rank: int
    size: int
    device: torch.device
    timeout: float = TIMEOUT
    watch: RankWatch | None = field(default=None, eq=False, repr=False)

    @property
    def main(self) -> bool:
        """Whether this rank writes files and terminal output."""
        return self.rank == 0


def join(
    device: str | None = None,
    timeout: float = TIMEOUT,
    *,
    exchanges: float | None = None,
    patience: float = PATIENCE,
    on_cpu: bool = False,
) -> World:
    """Join the process group of torchrun's environment variables, if set.

    device: `cpu`, `cuda`, `cuda:1`, `mps`; by default the GPU of this rank, or the CPU if there is none. timeout:
    seconds that a rank waits for the others, and for its loader processes. exchanges: in place of it, where a rank
    waits for others. patience: seconds before it says for whom it waits. on_cpu: exchange through the CPU's memory.

    Raises DetError for an unavailable device, or if not all ranks join in time.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    watch = None
    if size > 1 and not dist.is_initialized():
        backend = "nccl" if chosen.type == "cuda" and not on_cpu else "gloo"
        watch = _join_ranks(rank, size, backend, exchanges or timeout, patience)
    return World(rank, size, chosen, timeout, watch)


def _join_ranks(rank: int, size: int, backend: str, timeout: float, patience: float) -> RankWatch:
    limit = timedelta(seconds=timeout)
    slow = threading.Timer(PATIENCE, log.warning, ["rank %d waits for all %d ranks to start", rank, size])
    slow.daemon = True
    slow.start()
    try:
        store, _, _ = next(rendezvous("env://", rank, size, timeout=limit))
        watch = RankWatch(rank, size, store, patience=patience)
        with watch.exchange("the start"):
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        first = str(error).partition("\n")[0]
        raise DetError(
            f"rank {rank} cannot join the {size} ranks at {where} ({first}); start all of them with torchrun, at the "
            "same time and with the same --master-addr and --master-port"
        ) from error
    finally:
        slow.cancel()
    return watch


def choose_device(device: str | None) -> torch.device:
    """The given device, or by default a GPU if available; DetError for an unavailable device."""
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


def leave(world: World) -> None:
    """Leave the process group, if any."""
    if world.watch is not None:
        world.watch.end()
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def exchange(what: str, world: World) -> Iterator[None]:
    """Inside, all ranks exchange something: says for whom this rank waits; DetError if another rank has ended."""
    if world.watch is None:
        yield
    else:
        with world.watch.exchange(what):
            yield


def gather(value: T, world: World, what: str) -> list[T]:
    """The values of all ranks, in rank order, on every rank. what: they are, for messages."""
    if world.size == 1:
        return [value]
    values: list[T | None] = [None] * world.size
    with exchange(what, world):
        dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def barrier(world: World, what: str) -> None:
    """Wait for all ranks. what: for, for messages."""
    if world.size > 1:
        with exchange(what, world):
            dist.barrier()


@frozen(eq=False)
class GlobalLosses:
    """The losses of a step over all ranks.

    backward: () the loss to differentiate on this rank: its totals divided by the global counts, times the number of
    ranks, since DDP averages gradients. values: each global loss as a number. stop: whether a rank requests a stop.
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
    """Divide every loss by its count over all ranks, with one collective for counts, totals and stop requests.

    On one process this is `LossTerm.value` of each. Totals and counts are summed in float64, so that sums do not depend
    on the distribution of a batch over ranks.
    """
    totals = torch.stack([t.total.detach() for t in terms.values()])
    totals = totals if totals.device.type == "mps" else totals.double()  # Apple's GPUs have no float64
    counts = torch.stack([_like(totals, t.count) for t in terms.values()])
    packed = torch.cat([totals, counts, totals.new_tensor([float(stop)])])
    with exchange("the losses of a step", world):
        if world.size > 1:
            dist.all_reduce(packed)
        numbers = packed.tolist()
    n = len(terms)
    divisors = [max(c, 1.0) for c in numbers[n : 2 * n]]
    backward = torch.stack([t.total * (world.size / d) for t, d in zip(terms.values(), divisors, strict=True)]).sum()
    values = {name: numbers[i] / divisors[i] for i, name in enumerate(terms)}
    return GlobalLosses(backward, values, numbers[-1] > 0)
