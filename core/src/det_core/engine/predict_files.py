"""Prediction from image files, which loader processes read and prepare while the detector works on those before.

Letters: h w original image size.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from attrs import evolve, frozen
from torch import Tensor
from torch.utils.data import Dataset

from det_core.contracts import BadSample
from det_core.data.bad_samples import BadImage
from det_core.data.image_list import ImageList, ListedImage
from det_core.data.loader import load_batches
from det_core.engine.image_inputs import to_sample
from det_core.engine.predictor import Predictor
from det_core.engine.prepared_images import Preparation, PreparedImage
from det_core.engine.same_size import batches_of
from det_core.errors import DetError
from det_core.specs import TIMEOUT, PixelFormat
from det_core.structures import Detections

FEW = 8  # images that are sooner read than processes start
AHEAD = 1  # batches that wait in each process; they hold the pixels of whole photographs


@frozen(eq=False, kw_only=True)
class FileResult:
    """What was found in an image of a list, of `size` (h, w); or why it cannot be read.

    index: in the list. pixels: (C, h, w) as they were read, where they were asked for.
    """

    index: int
    image: ListedImage
    size: tuple[int, int] = (0, 0)
    pixels: Tensor | None = None
    detections: Detections | None = None
    bad: BadSample | None = None


def predict_files(
    predictor: Predictor,
    images: ImageList,
    indices: Sequence[int],
    *,
    workers: int = 0,
    timeout: float = TIMEOUT,
    wants_pixels: Callable[[int], bool] = lambda index: False,
) -> Generator[list[FileResult]]:
    """The results for images of a list, a batch at a time; only a few batches are in memory.

    Images that are padded to one size are detected at once. So results come in an order of their own, which depends
    only on the images.

    Args:
        predictor: its `batch_size` is that of a batch.
        images, indices: the list, and which of its images.
        workers: loader processes; 0 reads in this process.
        timeout: seconds without a batch of the loader processes after which DataError is raised.
        wants_pixels: whether the result of an index has the image's pixels.

    Raises:
        DetError: for a setting of the environment that is wrong; if a loader process returns nothing for long.
    """
    size = predictor.batch_size
    source = _Files(images, predictor.preparation, wants_pixels, predictor.pixels)
    loaded = load_batches(source, _Batches(indices, size), workers, timeout, ahead=AHEAD)
    divisor = predictor.pad_divisor
    bad: list[FileResult] = []
    for batch in batches_of(_readable(loaded, bad), size, lambda item: item.prepared.padded_sizes(divisor)):
        found = predictor.detect([item.prepared for item in batch])
        done = [evolve(item.result, detections=d) for item, d in zip(batch, found, strict=True)]
        yield [*bad, *done]
        bad.clear()
    if bad:
        yield bad


@frozen(eq=False)
class _Item:
    """An image that is read, or not, and prepared; or the failure that is not of this image alone."""

    result: FileResult
    prepared: PreparedImage = PreparedImage()
    failure: str = ""


def _readable(batches: Iterator[list[_Item]], bad: list[FileResult]) -> Iterator[_Item]:
    """The images that can be read; the results of the others are added to `bad`."""
    for batch in batches:
        for item in batch:
            if item.failure:
                raise DetError(item.failure)
            if item.result.bad is None:
                yield item
            else:
                bad.append(item.result)


@frozen
class _Batches:
    """The indices in batches, made as they are needed."""

    indices: Sequence[int]
    size: int

    def __len__(self) -> int:
        return -(-len(self.indices) // self.size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.indices), self.size):
            yield [int(index) for index in self.indices[start : start + self.size]]


class _Files(Dataset[Any]):
    """Reads and transforms the image of an index. What is wrong is returned as a value, not raised."""

    def __init__(
        self, images: ImageList, preparation: Preparation, wants_pixels: Callable[[int], bool], pixels: PixelFormat
    ) -> None:
        self._images, self._preparation, self._wants_pixels = images, preparation, wants_pixels
        self._pixels = pixels

    def __getitem__(self, index: int) -> _Item:
        image = self._images[index]
        if image.problem:
            return _Item(FileResult(index=index, image=image, bad=BadSample(image.problem, image.path, image.image_id)))
        try:
            sample = to_sample(image.path, pixels=self._pixels)
        except BadImage as error:
            return _Item(FileResult(index=index, image=image, bad=error.sample))
        except DetError as error:
            return _Item(FileResult(index=index, image=image), failure=str(error))
        pixels = sample.image if self._wants_pixels(index) else None
        result = FileResult(index=index, image=image, size=sample.size, pixels=pixels)
        return _Item(result, self._preparation(sample))
