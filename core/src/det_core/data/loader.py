"""Batches of transformed images: which images a step sees, and the processes that load them.

What a step sees follows from the seed, the epoch and the step alone: not from the number of loader processes, nor
from how a global batch is spread over ranks. Letters: N images, B images of a global batch (all ranks), h w the size
of an image after its transforms.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs
import torch
from attrs import field, frozen, validators
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from det_core.contracts import BadSample, DetectionDataset, Sample, Transform
from det_core.data.bad_samples import REMEDY, BadImage
from det_core.data.transforms import apply_transforms
from det_core.errors import DataError
from det_core.structures import ImageInfo, Key, Targets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)


@frozen(eq=False, kw_only=True)
class LoadedImage:
    """One image, ready to be normalised and padded into a batch.

    image: (3, h, w) uint8 RGB. targets: in pixels of it. proposals: (p, 4) in pixels of it, or None.
    skipped: bad images that were passed over before this one was taken.
    """

    image: Tensor
    targets: Targets
    info: ImageInfo
    proposals: Tensor | None = None
    skipped: tuple[BadSample, ...] = ()


@frozen
class Failure:
    """An image that could not be loaded, on its way from a loader process."""

    skipped: tuple[BadSample, ...]


@frozen(eq=False, kw_only=True)
class TrainSampler:
    """Which images each step of an epoch takes; a pure function of seed and epoch.

    An epoch goes `repeat` times over the data in one random order. With `group_by_aspect` a global batch holds only
    wide images (w > h) or only the others; what is left over of both is joined into the last batches, and the last one
    is filled from the start of the epoch's order, so that all are full. Then the batches are shuffled. Each rank takes
    its contiguous part of every global batch: one rank with twice the images sees the same as two.
    """

    sizes: NDArray[np.int64] = field(repr=False)
    images_per_rank: int = field(validator=validators.ge(1))
    seed: int = 0
    rank: int = 0
    world: int = field(default=1, validator=validators.ge(1))
    repeat: int = field(default=1, validator=validators.ge(1))
    group_by_aspect: bool = True

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} of {self.world} processes")
        if len(self.sizes) == 0:
            raise DataError("the data set has no images to train on")

    @property
    def global_batch(self) -> int:
        """B: images of a step over all ranks."""
        return self.images_per_rank * self.world

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, the same on all ranks."""
        return -(-len(self.sizes) * self.repeat // self.global_batch)

    def batches(self, epoch: int) -> list[list[Key]]:
        """The images of each step of an epoch on this rank."""
        start = self.rank * self.images_per_rank
        return [batch[start : start + self.images_per_rank] for batch in self.global_batches(epoch)]

    def global_batches(self, epoch: int) -> list[list[Key]]:
        """The images of each step of an epoch on all ranks."""
        generator = Key(seed=self.seed, epoch=epoch).generator("order")
        count = len(self.sizes)
        order: list[int] = torch.randperm(count * self.repeat, generator=generator).tolist()
        batches = self._cut(order)
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return [[Key(self.seed, epoch, *divmod(item, count)) for item in batches[b]] for b in shuffled]

    def _cut(self, order: list[int]) -> list[list[int]]:
        """Full batches of this order, grouped; items are repeat * N + index."""
        size, full, rest = self.global_batch, [], []
        for group in self._groups(order):
            whole = len(group) - len(group) % size
            full += [group[i : i + size] for i in range(0, whole, size)]
            rest += group[whole:]
        full += [rest[i : i + size] for i in range(0, len(rest), size)]
        fill = iter(_fillers(order, full[-1], size))
        full[-1] = [*full[-1], *(next(fill) for _ in range(size - len(full[-1])))]
        return full

    def _groups(self, order: list[int]) -> list[list[int]]:
        if not self.group_by_aspect:
            return [order]
        wide = self._wide
        return [[i for i in order if wide[i % len(wide)] == side] for side in (True, False)]

    @cached_property
    def _wide(self) -> list[bool]:
        wide: list[bool] = (self.sizes[:, 1] > self.sizes[:, 0]).tolist()
        return wide


def _fillers(order: list[int], batch: list[int], size: int) -> list[int]:
    """Items from the start of the order to fill a batch with: first those it has not, then again and again."""
    taken = set(batch)
    return [item for item in order if item not in taken] + order * (size // len(order) + 1)


class Loader:
    """Iterates over an epoch's steps (lists of images) or over a test set's images; see the functions below.

    `skipped`: bad images met so far, each once; they are also added to the data set's own `skipped`.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        transforms: Sequence[Transform],
        batches: Sequence[Sequence[Key]],
        workers: int,
        substitute: bool,
    ) -> None:
        self.skipped: list[BadSample] = []
        self._dataset = dataset
        self._batches = batches
        self._source = _Source(dataset, tuple(transforms), substitute)
        self._workers = workers

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[LoadedImage]]:
        for items in _data_loader(self._source, self._batches, self._workers):
            for item in items:
                self._report(item)
            yield [item for item in items if isinstance(item, LoadedImage)]

    def _report(self, item: LoadedImage | Failure) -> None:
        """Raise or note what was wrong with the images met on the way to this one."""
        if isinstance(item, Failure) and self._dataset.on_bad_sample == "error":
            raise DataError(f"{item.skipped[0]}\n{REMEDY}")
        if isinstance(item, Failure) and self._source.substitute:
            raise DataError(f"{self._dataset.name}: not one image can be loaded; the first: {item.skipped[0]}")
        for bad in item.skipped:
            if bad not in self.skipped:
                self.skipped.append(bad)
            if bad not in self._dataset.skipped:
                self._dataset.skipped.append(bad)
                log.warning("left out %s", bad)


class TestLoader:
    """The images of a test set, one at a time and in order; `skipped` as in `Loader`."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    @property
    def skipped(self) -> list[BadSample]:
        return self._loader.skipped

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[LoadedImage]:
        for images in self._loader:
            yield from images


def train_loader(
    dataset: DetectionDataset,
    transforms: Sequence[Transform],
    sampler: TrainSampler,
    epoch: int,
    start_step: int = 0,
    workers: int = 0,
) -> Loader:
    """The steps of an epoch on this rank, from `start_step` on (the earlier ones are not loaded).

    A bad image met on the way raises DataError with its file, or, where the data set skips bad samples, is replaced by
    the next in the data set and noted in `skipped`.
    """
    return Loader(dataset, transforms, sampler.batches(epoch)[start_step:], workers, substitute=True)


def test_loader(
    dataset: DetectionDataset,
    transforms: Sequence[Transform],
    workers: int = 0,  # noqa: PT028
    rank: int = 0,  # noqa: PT028
    world: int = 1,  # noqa: PT028
) -> TestLoader:
    """Images rank, rank + world, ... of a data set, in order. Bad images raise DataError, or are left out."""
    batches = [[Key(index=index)] for index in range(rank, len(dataset), world)]
    return TestLoader(Loader(dataset, transforms, batches, workers, substitute=False))


test_loader.__test__ = False  # type: ignore[attr-defined]


def prepare(sample: Sample, transforms: Sequence[Transform], key: Key) -> LoadedImage:
    """A sample after its transforms, with what is to be known of it."""
    height, width = sample.size
    done = apply_transforms(sample, transforms, key)
    info = ImageInfo(
        size=done.size,
        original_size=(height, width),
        key=key,
        image_id=sample.image_id,
        scale=(done.size[0] / height, done.size[1] / width),
        file=sample.file,
    )
    return LoadedImage(image=done.image, targets=done.targets(), info=info, proposals=done.proposals)


class _Source(Dataset[Any]):
    """Loads and transforms the image of a key; what goes wrong with an image is a value, not an exception."""

    def __init__(self, dataset: DetectionDataset, transforms: tuple[Transform, ...], substitute: bool) -> None:
        self.dataset, self.transforms = dataset, transforms
        self.substitute = substitute and dataset.on_bad_sample == "skip"

    def __getitem__(self, key: Key) -> LoadedImage | Failure:
        skipped: list[BadSample] = []
        for offset in range(len(self.dataset) if self.substitute else 1):
            try:
                sample = self.dataset.load((key.index + offset) % len(self.dataset))
            except BadImage as error:
                skipped.append(error.sample)
                continue
            return attrs.evolve(prepare(sample, self.transforms, key), skipped=tuple(skipped))
        return Failure(tuple(skipped))


def _data_loader(source: _Source, batches: Sequence[Sequence[Key]], workers: int) -> DataLoader[Any]:
    fork = workers > 0 and sys.platform == "linux"  # workers share the annotations without copying them
    own = torch.Generator().manual_seed(0)  # else the loader draws from the global one, which a resumed run relies on
    return DataLoader(
        source,
        batch_sampler=[list(keys) for keys in batches],
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=_start_worker,
        multiprocessing_context=multiprocessing.get_context("fork") if fork else None,
        generator=own,
    )


def _as_it_is(items: list[LoadedImage | Failure]) -> list[LoadedImage | Failure]:
    return items


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the main process, which ends its workers in order
