"""Evaluate a detector on a data set, with the images distributed over ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

from attrs import frozen

from det_core.contracts import DetectionDataset, Evaluator, Sample, Transform
from det_core.data.loader import TestLoader, test_loader
from det_core.data.loader_watch import worker_errors
from det_core.engine.detection_recorder import DetectionRecorder
from det_core.engine.device_batches import on_host, sent_ahead, streams_of
from det_core.engine.distributed import World, gather
from det_core.engine.predict import inference_autocast, to_batch
from det_core.engine.prepare_inference import for_inference
from det_core.engine.prepared_images import Preparation, detect
from det_core.engine.same_size import same_size_batches
from det_core.engine.test_time_augmentation import Augmentation, merge, unflip
from det_core.engine.tiling import Tiling
from det_core.errors import DetError, first_few
from det_core.evaluation.metric_config import CocoEvaluatorConfig
from det_core.model.detector import Detector
from det_core.slots import EvaluatorConfig, TransformConfig
from det_core.structures import Detections

Records = list[dict[str, Any]]
Found = list[tuple[int, Detections]]  # by image id
Encoder = Evaluator | DetectionRecorder


@frozen
class Evaluation:
    """metrics: of all evaluators, by name, fractions of 1. per_class: by class name. tables: text for the terminal."""

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    tables: tuple[str, ...]

    def by_name(self) -> dict[str, float]:
        """All metrics in one mapping, those of a class as `box_ap/person`."""
        classes = {f"{m}/{name}": value for name, values in self.per_class.items() for m, value in values.items()}
        return {**self.metrics, **classes}


class EvaluationStopped(Exception):
    """`should_stop` returned True before the evaluation was complete."""


def evaluate(
    detector: Detector,
    dataset: DetectionDataset,
    *,
    evaluators: Sequence[EvaluatorConfig] | None = None,
    transforms: Sequence[TransformConfig] | None = None,
    workers: int = 0,
    batch_size: int = 1,
    precision: str = "fp32",
    augmentation: Augmentation | None = None,
    tiling: Tiling | None = None,
    world: World | None = None,
    recorder: DetectionRecorder | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Detect on every image and compute the metrics, on all ranks.

    Args:
        detector: put into evaluation mode; stays on its device.
        dataset: with ground truth, and masks if an evaluator needs them.
        evaluators: by default COCO's metrics of boxes, and of masks if the detector has a mask head.
        transforms: of the images; by default the detector's test transforms.
        workers: loader processes of this rank.
        batch_size: images of one padded size that are detected at once, with the results of one at a time; with several
            views of an image always 1. With tiles, the tiles of an image that are detected at once.
        precision: `fp32`, `bf16` or `fp16`.
        augmentation: views of each image whose detections are merged; by default one view.
        tiling: the tiles of images that are larger than one; by default no image is divided.
        world: the ranks that share the work; by default only this process.
        recorder: keeps the detections of all ranks.
        progress: called with the number of finished images and of all images of this rank.
        should_stop: called after every batch.

    Raises:
        DetError: if the detector was trained on other classes than the data set's; if a loader process or another
            rank has ended, or does not answer within the world's timeout.
        EvaluationStopped: if `should_stop` returned True on a rank.
    """
    check_classes(detector, dataset)
    detector = for_inference(detector)
    if evaluators is None:
        evaluators = (CocoEvaluatorConfig(kinds=("box", "mask") if detector.needs_masks else ("box",)),)
    world = world or World(0, 1, detector.preprocess.mean.device)
    built = [config.build(dataset) for config in evaluators]
    encoders: list[Encoder] = [*built, *([] if recorder is None else [recorder])]
    augmentation = augmentation or Augmentation()
    given = detector.test_transforms if transforms is None else transforms

    def loader(steps: Sequence[Transform]) -> TestLoader:
        return test_loader(dataset, steps, workers, world.rank, world.size, world.timeout)

    if tiling is None:
        views = [(loader([t.build() for t in view]), mirror) for view, mirror in augmentation.views(given)]
        size = batch_size if len(views) == 1 else 1
        seen = [_detections(detector, *view, precision, size) for view in views]
    else:
        preparation = Preparation.of(given, augmentation, tiling)
        seen = [_on_tiles(detector, loader([]), preparation, precision, batch_size)]
    stopped, done, total = False, 0, len(range(world.rank, len(dataset), world.size))
    with worker_errors(), _Encoding(encoders) as encoding:
        for found in zip(*seen, strict=True):
            encoding.add(found[0] if len(found) == 1 else _merged(found, augmentation))
            done += len(found[0])
            progress(done, total)
            if should_stop():
                stopped = True
                break
        records = encoding.records()
    gathered = gather((stopped, records), world, "the detections of an evaluation")
    if any(s for s, _ in gathered):
        raise EvaluationStopped
    rows = [[row for _, r in gathered for row in r[i]] for i in range(len(encoders))]
    if recorder is not None:
        recorder.records = rows[-1]
    return metrics_of(built, rows[: len(built)])


def _detections(
    detector: Detector, loader: TestLoader, mirrored: bool, precision: str, batch_size: int
) -> Iterator[Found]:
    """Image ids and detections, in pixels of the original image, of each batch of this rank."""
    device = detector.preprocess.mean.device
    batches = same_size_batches(loader, batch_size, detector.preprocess.config.pad_divisor)
    with closing(sent_ahead(batches, detector.preprocess, streams_of(device), targets=False)) as sent:
        for images in sent:
            with inference_autocast(device, precision):
                batch = to_batch(detector, images)
                found = on_host(detector.predict(batch))
            if mirrored:
                found = [unflip(f, info.original_size[1]) for f, info in zip(found, batch.infos, strict=True)]
            yield [(info.image_id, f) for info, f in zip(batch.infos, found, strict=True)]


def _on_tiles(
    detector: Detector, loader: TestLoader, preparation: Preparation, precision: str, batch_size: int
) -> Iterator[Found]:
    """The id and detections of each image of this rank, those of large images from their tiles."""
    for image in loader:
        targets, info = image.targets, image.info
        assert targets.ignored is not None  # as loaded
        sample = Sample(
            image=image.image,
            boxes=targets.boxes,
            labels=targets.labels,
            ignored=targets.ignored,
            proposals=image.proposals,
            file=info.file,
            image_id=info.image_id,
        )
        found = detect(detector, [preparation(sample)], preparation, precision, batch_size)
        yield [(info.image_id, found[0])]


def _merged(views: Sequence[Found], augmentation: Augmentation) -> Found:
    """The detections of an image from its views."""
    return [(views[0][0][0], merge([view[0][1] for view in views], augmentation))]


class _Encoding:
    """Encodes detections for the evaluators in a thread, while the next batch is detected."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self._encoders = encoders
        self._records: list[Records] = [[] for _ in encoders]
        self._thread = ThreadPoolExecutor(1, "det encoder")
        self._last: Future[None] | None = None

    def __enter__(self) -> _Encoding:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def add(self, found: Found) -> None:
        """Encode the detections of a batch; waits for the batch before, and raises its error."""
        self._wait()
        self._last = self._thread.submit(self._encode, found)

    def records(self) -> list[Records]:
        """The records of all images so far, per evaluator."""
        self._wait()
        return self._records

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()

    def _encode(self, found: Found) -> None:
        for encoder, rows in zip(self._encoders, self._records, strict=True):
            for image_id, detections in found:
                rows += encoder.encode(image_id, detections)


def metrics_of(evaluators: Sequence[Evaluator], records: Sequence[Records]) -> Evaluation:
    """The metrics of all evaluators from the records of all images."""
    metrics: dict[str, float] = {}
    per_class: dict[str, dict[str, float]] = {}
    tables = []
    for evaluator, rows in zip(evaluators, records, strict=True):
        result = evaluator.compute(rows)
        metrics.update(result.metrics)
        for name, values in result.per_class.items():
            per_class.setdefault(name, {}).update(values)
        tables.append(result.table)
    return Evaluation(metrics, per_class, tuple(tables))


def check_classes(detector: Detector, dataset: DetectionDataset) -> None:
    """Raise DetError if the classes of the detector and of the data set differ."""
    ours, theirs = detector.classes, dataset.classes
    if ours.names != theirs.names and len(ours) != len(theirs):
        raise DetError(
            f"the detector has {len(ours)} classes ({first_few(ours.names)}), but {dataset.name} has {len(theirs)} "
            f"({first_few(theirs.names)}); evaluate on data with the detector's classes, or fine-tune it with --init"
        )
    generic = all(name.startswith("class ") for name in ours.names)
    if ours.names != theirs.names and not generic:
        raise DetError(
            f"the detector was trained on classes {first_few(ours.names)}, but {dataset.name} has "
            f"{first_few(theirs.names)} with the same labels; make `categories` of the annotation files equal"
        )
