"""Loading and transforming images in worker processes.

Letters: h w the size of an image after its transforms, p proposals.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import attrs
import torch
from attrs import frozen
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from det_core.contracts import BadSample, DetectionDataset, Sample, Samples, Transform
from det_core.data.bad_samples import REMEDY, BadImage, skipped_log
from det_core.data.epoch_order import TrainSampler
from det_core.data.loader_watch import PATIENCE, watched
from det_core.data.transforms import apply_transforms
from det_core.errors import DataError
from det_core.specs import TIMEOUT
from det_core.structures import ImageInfo, Key, Targets


@frozen(eq=False, kw_only=True)
class LoadedImage:
    """One transformed image, before normalisation and padding.

    image: (C, h, w), by default uint8 RGB. targets: in pixels of it. proposals: (p, 4) in pixels of it, or None.
    skipped: bad images that this image replaces.
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


class Batches(Protocol):
    """The images of each batch; they are made one after the other, as loader processes need them."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[list[Key]]: ...


@frozen
class _Epochs:
    """The batches of `count` epochs, without the first `start` of the first one."""

    sampler: TrainSampler
    first: int
    start: int
    count: int

    def __len__(self) -> int:
        return self.count * self.sampler.steps_per_epoch - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        for epoch in range(self.first, self.first + self.count):
            yield from self.sampler.batches(epoch)[self.start if epoch == self.first else 0 :]


@frozen
class _Single:
    """Batches of one image each."""

    indices: range

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[list[Key]]:
        return ([Key(index=index)] for index in self.indices)


class Loader:
    """Iterates over batches (lists of images); see `train_loader` and `test_loader`.

    skipped: bad images found so far, each once. They are also added to the data set's `skipped`.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        transforms: Sequence[Transform],
        batches: Batches,
        workers: int,
        train: bool,
        timeout: float,
    ) -> None:
        self.skipped: list[BadSample] = []
        self._dataset = dataset
        self._batches = batches
        self._source = _Source(dataset, tuple(transforms), substitute=train, mixing=train)
        self._workers = workers
        self._timeout = timeout

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[LoadedImage]]:
        for items in load_batches(self._source, self._batches, self._workers, self._timeout):
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
    epochs: int = 1,
) -> Loader:
    """The steps of some epochs on this rank, from `start_step` of `epoch` on; earlier steps are not loaded.

    The loader processes live as long as the iteration, so that the first batches of an epoch are ready when the one
    before ends. timeout: seconds without a batch of the loader processes after which DataError is raised.

    A bad image raises DataError with its file. If the data set skips bad samples, the next image of the data set
    replaces it.
    """
    return Loader(dataset, transforms, _Epochs(sampler, epoch, start_step, epochs), workers, True, timeout)


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
    batches = _Single(range(rank, len(dataset), world))
    return TestLoader(Loader(dataset, transforms, batches, workers, False, timeout))


test_loader.__test__ = False  # type: ignore[attr-defined]


def prepare(sample: Sample, transforms: Sequence[Transform], key: Key, others: Samples | None = None) -> LoadedImage:
    """Transform a sample, and record its metadata. others: the samples that transforms may mix it with."""
    height, width = sample.size
    done = apply_transforms(sample, transforms, key, others)
    info = ImageInfo(
        size=done.size,
        original_size=(height, width),
        key=key,
        image_id=sample.image_id,
        scale=done.pixel_scale or (done.size[0] / height, done.size[1] / width),
        inclusive=done.pixel_scale is not None,
        file=sample.file,
    )
    return LoadedImage(image=done.image, targets=done.targets(), info=info, proposals=done.proposals)


@frozen(eq=False)
class _Loading:
    """The samples that one image is made of. If `substitute`, the next image that can be loaded replaces a bad one.

    skipped: the bad images so far.
    """

    dataset: DetectionDataset
    substitute: bool
    skipped: list[BadSample] = attrs.field(factory=list)

    def __len__(self) -> int:
        return len(self.dataset)

    def load(self, index: int, /) -> Sample:
        """The sample at `index`, or one that replaces it; BadImage if there is none."""
        for offset in range(len(self) if self.substitute else 1):
            try:
                return self.dataset.load((index + offset) % len(self))
            except BadImage as error:
                self.skipped.append(error.sample)
        raise BadImage(self.skipped[0])


class _Source(Dataset[Any]):
    """Loads and transforms the image of a key. A bad image is returned as a value, not raised.

    mixing: whether transforms may mix an image with others of the data set.
    """

    def __init__(
        self, dataset: DetectionDataset, transforms: tuple[Transform, ...], substitute: bool, mixing: bool
    ) -> None:
        self.dataset, self.transforms, self.mixing = dataset, transforms, mixing
        self.substitute = substitute and dataset.on_bad_sample != "error"

    def __getitem__(self, key: Key) -> LoadedImage | Failure:
        loading = _Loading(self.dataset, self.substitute)
        try:
            loaded = prepare(loading.load(key.index), self.transforms, key, loading if self.mixing else None)
        except BadImage:
            return Failure(tuple(loading.skipped))
        return attrs.evolve(loaded, skipped=tuple(loading.skipped))


def load_batches(
    source: Dataset[Any], batches: Iterable[list[Any]], workers: int, timeout: float, ahead: int = 2
) -> Iterator[list[Any]]:
    """What `source` returns for the keys of each batch, in order, from loader processes if there are any.

    timeout: seconds without a batch of the loader processes after which DataError is raised. ahead: batches that each
    process makes before they are asked for.
    """
    yield from watched(_data_loader(source, batches, workers, timeout, ahead), timeout)


def _data_loader(
    source: Dataset[Any], batches: Iterable[list[Any]], workers: int, timeout: float, ahead: int
) -> DataLoader[Any]:
    fork = workers > 0 and sys.platform == "linux"  # forked workers share the annotations without copies
    # The default is the global generator, whose state a resumed run restores.
    generator = torch.Generator().manual_seed(0)
    return DataLoader(
        source,
        batch_sampler=batches,
        collate_fn=_identity,
        num_workers=workers,
        prefetch_factor=ahead if workers else None,
        timeout=min(PATIENCE, timeout) if workers else 0,
        worker_init_fn=_start_worker,
        multiprocessing_context=multiprocessing.get_context("fork") if fork else None,
        generator=generator,
    )


def _identity(items: list[Any]) -> list[Any]:
    return items


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the main process stops its workers
