"""A prediction run: detect on this process's share of a list of images, and write each result as it is found."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from attrs import define, evolve, frozen

from det_core.data.image_list import ImageList
from det_core.data.loader_watch import worker_errors
from det_core.engine.predict_files import FEW, FileResult, predict_files
from det_core.engine.prediction_folder import Progress
from det_core.engine.predictor import Predictor
from det_core.engine.result_log import Record, ResultLog, log_file
from det_core.engine.share import Share
from det_core.errors import DataError
from det_core.reports.prediction_pictures import PredictionPictures
from det_core.structures import Classes, Detections

SHOWN = 10  # images that cannot be read of which each is told

log = logging.getLogger(__name__)


@frozen(kw_only=True)
class RunOptions:
    """What a run does besides detecting.

    threshold: least score of detections in pictures and crops. pictures: how many of the list's first images to draw,
    None for all. crops: whether to cut out detections. stop_at_bad: raise DataError at an image that cannot be read.
    workers: loader processes; None: `default_workers`, if there is more than a few images. timeout: seconds without a
    batch of theirs.
    """

    folder: Path
    threshold: float
    pictures: int | None
    crops: bool
    stop_at_bad: bool
    workers: int | None
    default_workers: int
    timeout: float

    def wants_pixels(self, index: int) -> bool:
        """Whether an image is drawn or cut."""
        return self.crops or self.draws(index)

    def draws(self, index: int) -> bool:
        """Whether an image is drawn."""
        return self.pictures is None or index < self.pictures


@frozen
class Counts:
    """Images of a share: in all, done before this process began, and of all these, which cannot be read; detections."""

    images: int = 0
    before: int = 0
    bad: int = 0
    detections: int = 0

    def __add__(self, other: Counts) -> Counts:
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("images", "before", "bad", "detections"))
        return Counts(*(one + two for one, two in pairs))


@define(eq=False)
class PredictionRun:
    """One process's part of a run. progress: called with the number of images that are done, and of all, of the share.

    model: the name for records.
    """

    predictor: Predictor
    images: ImageList
    share: Share
    options: RunOptions
    model: str
    progress: Callable[[int, int], None] = lambda done, total: None

    def run(self) -> Counts:
        """Detect on all images of the share that are not done yet.

        Raises:
            DataError: at the first bad image, if the options say so.
            DetError: if another process writes to this share's file, or loader processes return nothing for long.
            WriteError: if results cannot be written; those before are kept.
        """
        results = ResultLog(log_file(self.options.folder, self.share))
        try:
            progress = Progress.read(self.options.folder, self.images, self.share)
            total, left = len(self.share.indices(len(self.images))), progress.remaining.tolist()
            counts = Counts(total, total - len(left), progress.bad, progress.detections)
            return self._run(results, left, counts)
        finally:
            results.close()

    def _run(self, results: ResultLog, indices: Sequence[int], counts: Counts) -> Counts:
        classes, options = self.predictor.classes, self.options
        pictures = PredictionPictures(options.folder, classes, options.threshold)
        workers = options.workers
        if workers is None:
            workers = options.default_workers if len(indices) > FEW else 0
        batches = predict_files(
            self.predictor,
            self.images,
            indices,
            workers=workers,
            timeout=options.timeout,
            wants_pixels=options.wants_pixels,
        )
        record = partial(self._record, pictures=pictures, classes=classes)
        done = counts.before
        with worker_errors("--workers 0"), closing(batches), closing(written_behind(batches, record)) as written:
            for batch, records in written:
                results.append(records)
                counts = self._counted(batch, counts)
                done += len(batch)
                self.progress(done, counts.images)
        return counts

    def _counted(self, batch: Sequence[FileResult], counts: Counts) -> Counts:
        """The counts with those of a batch; tells of the first bad images."""
        for result in batch:
            if result.bad is not None:
                counts = evolve(counts, bad=counts.bad + 1)
                if self.options.stop_at_bad:
                    raise DataError(f"{result.bad}; without --on-bad-sample error it is recorded and left out")
                if counts.bad <= SHOWN:
                    log.error("%s", result.bad)
        found = sum(len(result.detections) for result in batch if result.detections is not None)
        return evolve(counts, detections=counts.detections + found)

    def _record(self, result: FileResult, pictures: PredictionPictures, classes: Classes) -> Record:
        """A result as a record; its picture and crops are written before, so that a record says that they are there."""
        image = result.image
        record: Record = {"file": image.path}
        if image.image_id is not None:
            record["image_id"] = image.image_id
        record["model"] = self.model
        found = result.detections
        if found is None:
            assert result.bad is not None
            return {**record, "error": result.bad.what}
        height, width = result.size
        record |= {"height": height, "width": width, "detections": plain_detections(found, classes)}
        if result.pixels is not None and self.options.draws(result.index):
            record["picture"] = pictures.draw(image.name, result.pixels, found)
        if result.pixels is not None and self.options.crops:
            pictures.crop(image.name, result.pixels, found)
        return record


def written_behind(
    batches: Iterable[list[FileResult]], record: Callable[[FileResult], Record]
) -> Generator[tuple[list[FileResult], list[Record]]]:
    """Each batch with its records, which threads make, with their pictures, while the next batch is detected.

    Batches come in order. After an error of the next batch, the batch that is being written still comes.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1, "det pictures") as threads:
        writing: tuple[list[FileResult], list[Future[Record]]] | None = None
        detected = iter(batches)
        while True:
            failure: Exception | None = None
            try:
                batch = next(detected, None)
            except Exception as error:  # the results before it are kept
                batch, failure = None, error
            coming = None if batch is None else (batch, [threads.submit(record, result) for result in batch])
            if writing is not None:
                yield writing[0], [made.result() for made in writing[1]]
            if failure is not None:
                raise failure
            if coming is None:
                return
            writing = coming


def plain_detections(found: Detections, classes: Classes) -> list[Record]:
    """Detections as plain data for JSON: box, score, label, class and, with masks, mask."""
    codes = found.mask_codes()
    masks = [None] * len(found) if codes is None else codes
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), masks, strict=True)
    return [
        {"box": box, "score": score, "label": label, "class": classes.names[label]}
        | ({} if mask is None else {"mask": mask})
        for box, score, label, mask in rows
    ]
