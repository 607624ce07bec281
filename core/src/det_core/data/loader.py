"""Sampling of the images of each step, and loading and transforming them in worker processes.

The images of a step depend only on the seed, the epoch and the step, not on the number of loader processes or the
distribution of a global batch over ranks. Letters: N images, B images of a global batch (all ranks), h w the size of an
image after its transforms, p proposals.
"""

from __future__ import annotations

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
from det_core.data.bad_samples import REMEDY, BadImage, skipped_log
from det_core.data.loader_watch import PATIENCE, watched
from det_core.data.transforms import apply_transforms
from det_core.errors import DataError
from det_core.specs import TIMEOUT
from det_core.structures import ImageInfo, Key, Targets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@frozen(eq=False, kw_only=True)
class LoadedImage:
    """One transformed image, before normalisation and padding.

    image: (3, h, w) uint8 RGB. targets: in pixels of it. proposals: (p, 4) in pixels of it, or None. skipped: bad
    images that this image replaces.
    """

    image: Tensor
    targets: Targets
    info: ImageInfo
    proposals: Tensor | None = None
    skipped: tuple[BadSample, ...] = ()


@frozen
class Failure:
    """Result of a loader process for an image that could not be loaded."""

    skipped: tuple[BadSample, ...]


@frozen(eq=False, kw_only=True)
class TrainSampler:
    """Selects the images of each step of an epoch; a pure function of seed and epoch.

    An epoch contains the data `repeat` times, in one random order. With `group_by_aspect` a global batch has only wide
    images (w > h) or only others. The remainders of both groups are mixed in the last batches, and the last batch is
    filled from the start of the epoch's order. Then the batches are shuffled. Each rank takes a contiguous part of
    every global batch, so that one rank with twice the images trains on the same as two ranks.
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
        """B: images per step on all ranks."""
        return self.images_per_rank * self.world

    @property
    def steps_per_epoch(self) -> int:
        """Steps per epoch, equal on all ranks."""
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
        """Split an order of items (repeat * N + index) into full batches, by group."""
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
    """Items to fill a batch with: from the start of the order, first those that are not in the batch, then all."""
    taken = set(batch)
    return [item for item in order if item not in taken] + order * (size // len(order) + 1)


class Loader:
    """Iterates over batches (lists of images); see `train_loader` and `test_loader`.

    skipped: bad images found so far, each once. They are also added to the data set's `skipped`.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        transforms: Sequence[Transform],
        batches: Sequence[Sequence[Key]],
        workers: int,
        substitute: bool,
        timeout: float,
    ) -> None:
        self.skipped: list[BadSample] = []
        self._dataset = dataset
        self._batches = batches
        self._source = _Source(dataset, tuple(transforms), substitute)
        self._workers = workers
        self._timeout = timeout

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[LoadedImage]]:
        for items in watched(_data_loader(self._source, self._batches, self._workers, self._timeout), self._timeout):
            for item in items:
                self._report(item)
            yield [item for item in items if isinstance(item, LoadedImage)]

    def _report(self, item: LoadedImage | Failure) -> None:
        """Raise an error for a bad image, or add the skipped ones to `skipped`."""
        if isinstance(item, Failure) and self._dataset.on_bad_sample == "error":
            raise DataError(f"{item.skipped[0]}\n{REMEDY}")
        if isinstance(item, Failure) and self._source.substitute:
            raise DataError(f"{self._dataset.name}: no image can be loaded; the first error: {item.skipped[0]}")
        for bad in item.skipped:
            if bad not in self.skipped:
                self.skipped.append(bad)
            if bad not in self._dataset.skipped:
                self._dataset.skipped.append(bad)
                skipped_log.warning("skipped %s", bad)


class TestLoader:
    """Iterates over the images of a test set in order; `skipped` as in `Loader`."""

    __test__ = False  # not a test class for pytest

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
    timeout: float = TIMEOUT,
) -> Loader:
    """The steps of an epoch on this rank, from `start_step` on; earlier steps are not loaded.

    timeout: seconds without a batch of the loader processes after which DataError is raised.

    A bad image raises DataError with its file. If the data set skips bad samples, the next image of the data set
    replaces it.
    """
    return Loader(dataset, transforms, sampler.batches(epoch)[start_step:], workers, True, timeout)


def test_loader(
    dataset: DetectionDataset,
    transforms: Sequence[Transform],
    workers: int = 0,  # noqa: PT028
    rank: int = 0,  # noqa: PT028
    world: int = 1,  # noqa: PT028
    timeout: float = TIMEOUT,  # noqa: PT028
) -> TestLoader:
    """Images rank, rank + world, ... of a data set, in order. Bad images raise DataError, or are skipped.

    timeout: seconds without an image of the loader processes after which DataError is raised.
    """
    batches = [[Key(index=index)] for index in range(rank, len(dataset), world)]
    return TestLoader(Loader(dataset, transforms, batches, workers, False, timeout))


test_loader.__test__ = False  # type: ignore[attr-defined]


def prepare(sample: Sample, transforms: Sequence[Transform], key: Key) -> LoadedImage:
    """Transform a sample, and record its metadata."""
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
    """Loads and transforms the image of a key. A bad image is returned as a value, not raised."""

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


def _data_loader(source: _Source, batches: Sequence[Sequence[Key]], workers: int, timeout: float) -> DataLoader[Any]:
    fork = workers > 0 and sys.platform == "linux"  # forked workers share the annotations without copies
    # The default is the global generator, whose state a resumed run restores.
    generator = torch.Generator().manual_seed(0)
    return DataLoader(
        source,
        batch_sampler=[list(keys) for keys in batches],
        collate_fn=_identity,
        num_workers=workers,
        timeout=min(PATIENCE, timeout) if workers else 0,
        worker_init_fn=_start_worker,
        multiprocessing_context=multiprocessing.get_context("fork") if fork else None,
        generator=generator,
    )


def _identity(items: list[LoadedImage | Failure]) -> list[LoadedImage | Failure]:
    return items


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the main process stops its workers
