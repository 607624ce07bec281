"""Prediction from image files, which loader processes read and prepare while the detector works on those before.

Letters: h w original image size.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen
from torch import Tensor
from torch.utils.data import Dataset

from det_core.contracts import BadSample, Transform
from det_core.data.bad_samples import BadImage
from det_core.data.loader import LoadedImage, load_batches, prepare
from det_core.engine.image_inputs import to_sample
from det_core.engine.predict import built_views, detect_views
from det_core.engine.test_time_augmentation import Augmentation
from det_core.errors import DetError
from det_core.model.detector import Detector
from det_core.specs import TIMEOUT
from det_core.structures import Detections, Key

FEW = 8  # images that are sooner read than processes start
AHEAD = 1  # batches that wait in each process; they hold the pixels of whole photographs


@frozen(eq=False, kw_only=True)
class FileResult:
    """What was found in a file: image, (3, h, w) uint8 RGB, and its detections; or why it cannot be read."""

    file: Path
    image: Tensor | None = None
    detections: Detections | None = None
    bad: BadSample | None = None


def predict_files(
    detector: Detector,
    files: Sequence[Path],
    *,
    batch_size: int = 1,
    precision: str = "fp32",
    augmentation: Augmentation | None = None,
    workers: int = 0,
    timeout: float = TIMEOUT,
) -> Generator[list[FileResult]]:
    """The results of `predict` for the files, in their order, a batch at a time; only a few batches are in memory.

    Args:
        detector: put into evaluation mode; stays on its device.
        files: of images. One that cannot be read has only its own result missing.
        batch_size: files that are detected at once, if they are padded to one size.
        precision: `fp32`, `bf16` or `fp16`.
        augmentation: views of each image whose detections are merged; by default one view.
        workers: loader processes; 0 reads in this process.
        timeout: seconds without a batch of the loader processes after which DataError is raised.

    Raises:
        DetError: for a setting of the environment that is wrong; if a loader process returns nothing for long.
    """
    augmentation = augmentation or Augmentation()
    views = built_views(detector.test_transforms, augmentation)
    detector.eval()
    source = _Files(files, [transforms for transforms, _ in views])
    starts = range(0, len(files), batch_size)
    batches = [list(range(start, min(start + batch_size, len(files)))) for start in starts]
    for prepared in load_batches(source, batches, workers, timeout, ahead=AHEAD):
        for item in prepared:
            if item.failure:
                raise DetError(item.failure)
        good = [item for item in prepared if item.result.bad is None]
        seen = [[item.views[i] for item in good] for i in range(len(views))]
        found = iter(detect_views(detector, seen, [mirrored for _, mirrored in views], precision, augmentation))
        yield [
            item.result if item.result.bad is not None else attrs.evolve(item.result, detections=next(found))
            for item in prepared
        ]


@frozen(eq=False)
class _Prepared:
    """A file that is read, and its image in each view; or the failure that is not of this file alone."""

    result: FileResult
    views: tuple[LoadedImage, ...] = ()
    failure: str = ""


class _Files(Dataset[Any]):
    """Reads and transforms the file of an index. What is wrong is returned as a value, not raised."""

    def __init__(self, files: Sequence[Path], views: Sequence[Sequence[Transform]]) -> None:
        self._files, self._views = files, views

    def __getitem__(self, index: int) -> _Prepared:
        file = self._files[index]
        try:
            sample = to_sample(file)
        except BadImage as error:
            return _Prepared(FileResult(file=file, bad=error.sample))
        except DetError as error:
            return _Prepared(FileResult(file=file), failure=str(error))
        views = tuple(prepare(sample, transforms, Key()) for transforms in self._views)
        return _Prepared(FileResult(file=file, image=sample.image), views)
