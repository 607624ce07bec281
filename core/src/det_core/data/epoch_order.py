"""Which images each step of an epoch trains on: a function of seed, epoch and step alone.

The order of an epoch is held in arrays, so that it takes no more than 4 bytes an image. Letters: N images, B images of
a global batch (all ranks).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, overload

import attrs
import numpy as np
import torch
from attrs import field, frozen, validators

from det_core.data.repeat_factors import drawn_counts, most_items
from det_core.errors import DataError
from det_core.structures import Key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Items = NDArray[np.int32] | NDArray[np.int64]


@frozen(eq=False, kw_only=True)
class EpochBatches(Sequence[list[Key]]):
    """The batches of an epoch, each made when it is asked for.

    items: (S, b) positions repeat * N + index of the images of each batch. shuffled: (S,) the order of the batches.
    images: N.
    """

    items: Items
    shuffled: NDArray[np.int64]
    images: int
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.shuffled)

    @overload
    def __getitem__(self, at: int) -> list[Key]: ...
    @overload
    def __getitem__(self, at: slice) -> EpochBatches: ...
    def __getitem__(self, at: int | slice) -> list[Key] | EpochBatches:
        if isinstance(at, slice):
            return attrs.evolve(self, shuffled=self.shuffled[at])
        items: list[int] = self.items[self.shuffled[at]].tolist()
        return [Key(self.seed, self.epoch, *divmod(item, self.images)) for item in items]


@frozen(eq=False, kw_only=True)
class TrainSampler:
    """Selects the images of each step of an epoch; a pure function of seed and epoch.

    An epoch contains the data `repeat` times, in one random order. With `group_by_aspect` a global batch has only wide
    images (w > h) or only others. The remainders of both groups are mixed in the last batches, and the last batch is
    filled from the start of the epoch's order. Then the batches are shuffled. Each rank takes a contiguous part of
    every global batch, so that one rank with twice the images trains on the same as two ranks.

    sizes: (N, 2) (height, width). factors: (N,) repeat factors, each at least 1, or None. With them an epoch contains
    image I `repeat` * r(I) times on average (`repeat_factors.drawn_counts`).
    """

    sizes: NDArray[np.int64] = field(repr=False)
    images_per_rank: int = field(validator=validators.ge(1))
    seed: int = 0
    rank: int = 0
    world: int = field(default=1, validator=validators.ge(1))
    repeat: int = field(default=1, validator=validators.ge(1))
    group_by_aspect: bool = True
    factors: NDArray[np.float64] | None = field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} of {self.world} processes")
        if len(self.sizes) == 0:
            raise DataError("the data set has no images to train on")

    @property
    def global_batch(self) -> int:
        """B: images per step on all ranks."""
        return self.images_per_rank * self.world

    @property
    def steps_per_epoch(self) -> int:
        """Steps per epoch, equal on all ranks."""
        return -(-self.images_per_epoch // self.global_batch)

    @cached_property
    def images_per_epoch(self) -> int:
        """Images of an epoch on all ranks, repeated ones included; an epoch with factors may have one less."""
        return len(self.sizes) * self.repeat if self.factors is None else most_items(self.factors * self.repeat)

    def batches(self, epoch: int) -> Sequence[list[Key]]:
        """The images of each step of an epoch on this rank."""
        start = self.rank * self.images_per_rank
        return self._batches(epoch, slice(start, start + self.images_per_rank))

    def global_batches(self, epoch: int) -> Sequence[list[Key]]:
        """The images of each step of an epoch on all ranks."""
        return self._batches(epoch, slice(None))

    def _batches(self, epoch: int, part: slice) -> EpochBatches:
        generator = Key(seed=self.seed, epoch=epoch).generator("order")
        items = self._cut(self._order(generator, epoch))
        shuffled: NDArray[np.int64] = torch.randperm(len(items), generator=generator).numpy()
        return EpochBatches(
            items=items[:, part], shuffled=shuffled, images=len(self.sizes), seed=self.seed, epoch=epoch
        )

    def _order(self, generator: torch.Generator, epoch: int) -> Items:
        """The items of an epoch in random order: (N * repeat,) without factors."""
        if self.factors is not None:
            counts = drawn_counts(self.factors * self.repeat, Key(seed=self.seed, epoch=epoch))
            items = _repeated(counts)
            return items[torch.randperm(len(items), generator=generator).numpy()]
        total = len(self.sizes) * self.repeat
        order: NDArray[np.int64] = torch.randperm(total, generator=generator).numpy()
        return order.astype(np.int32) if total < 2**31 else order

    def _cut(self, order: Items) -> Items:
        """(S, B) items, split into full batches by group."""
        size = self.global_batch
        full, rest = [], []
        for group in self._groups(order):
            whole = len(group) - len(group) % size
            full.append(group[:whole])
            rest.append(group[whole:])
        used = np.concatenate([*full, *rest])
        missing = self.steps_per_epoch * size - len(used)
        if missing:
            used = np.concatenate([used, _fillers(order, used[len(used) - (size - missing) :], missing)])
        return used.reshape(-1, size)

    def _groups(self, order: Items) -> Iterator[Items]:
        if not self.group_by_aspect:
            yield order
            return
        wide = self._wide[order % len(self._wide)]
        yield order[wide]
        yield order[~wide]

    @cached_property
    def _wide(self) -> NDArray[np.bool_]:
        return np.asarray(self.sizes[:, 1] > self.sizes[:, 0])


def _repeated(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The items repeat * N + index of images that occur so often: an image's repeats are 0, 1, ..."""
    images = np.repeat(np.arange(len(counts)), counts)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    return (np.arange(len(images)) - starts) * len(counts) + images


def _fillers(order: Items, batch: Items, missing: int) -> Items:
    """Items to fill a batch with: from the start of the order, first those that are not in the batch, then all."""
    start = order[: len(batch) + missing]
    others = start[~np.isin(start, batch)]
    return np.resize(np.concatenate([others, np.resize(order[:missing], missing)]), missing)
