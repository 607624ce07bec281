"""Metrics of predictions in files: those of `det-core predict`, or COCO's results.

Letters: n detections of an image.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from det_core.compressed_masks import CompressedMasks, decode_masks
from det_core.contracts import DetectionDataset
from det_core.engine.detection_recorder import DetectionRecorder
from det_core.engine.evaluate import Evaluation, metrics_of
from det_core.engine.result_files import has_voc_results, read_voc_results
from det_core.engine.result_log import Record, log_files, records_of
from det_core.errors import DetError, counted, first_few, no_such
from det_core.settings import show
from det_core.slots import EvaluatorConfig
from det_core.structures import Detections

log = logging.getLogger(__name__)


@frozen(eq=False)
class Predictions:
    """The detections of images by their ids in a data set, and the models that they are of, where that is known."""

    found: dict[int, Detections]
    models: tuple[str, ...] = ()


def evaluate_predictions(
    dataset: DetectionDataset,
    predictions: Predictions,
    evaluators: Sequence[EvaluatorConfig],
    recorder: DetectionRecorder | None = None,
) -> Evaluation:
    """The metrics of predictions; images without any count as images without detections.

    recorder: keeps the detections.

    Raises:
        DetError: if a metric needs masks and the predictions have none, or for another mistake of `Evaluator.encode`.
    """
    built = [config.build(dataset) for config in evaluators]
    if recorder is not None:
        recorder.records = [
            row for number, found in predictions.found.items() for row in recorder.encode(number, found)
        ]
    rows = [
        [row for image_id, found in predictions.found.items() for row in evaluator.encode(image_id, found)]
        for evaluator in built
    ]
    return metrics_of(built, rows)


def read_predictions(path: Path, dataset: DetectionDataset) -> Predictions:
    """The predictions for a data set, with a warning for images that have none and predictions without image.

    Args:
        path: a folder of `det-core predict`, one of its `.jsonl` files, a `.json` file in COCO's results format, or a
            folder of VOC's text files.
        dataset: with the detector's classes. Images of records are found by their id, or else by their path.

    Raises:
        DetError: if the file cannot be read or is in neither format, has an image twice, or classes that the data set
            does not have.
    """
    if path.is_dir() and not log_files(path) and has_voc_results(path, dataset):
        return _of_coco(path, read_voc_results(path, dataset), dataset)
    if path.is_dir() and not log_files(path):
        raise DetError(
            f"{path}: neither predictions*.jsonl nor VOC's text files (..._<class>.txt) in this folder; give a folder "
            "of `det-core predict` or of `det-core test --detections`, or a file"
        )
    if not path.exists():
        raise DetError(no_such(path, "no such file or folder"))
    if path.suffix == ".json":
        return _of_coco(path, _read_coco(path), dataset)
    return _of_records(path, log_files(path) if path.is_dir() else [path], dataset)


def _of_records(path: Path, files: Iterable[Path], dataset: DetectionDataset) -> Predictions:
    ids = {int(number) for number in dataset.image_ids}
    by_file = _Files(dataset)
    found: dict[int, Detections] = {}
    models: dict[str, None] = {}
    bad = unknown = 0
    for record in (record for file in files for record in records_of(file)):
        number = record.get("image_id", None)
        number = number if number in ids else by_file.id_of(record["file"])
        if number is None:
            unknown += 1
        elif "error" in record:
            bad += 1
        elif number in found:
            raise DetError(f"{path}: image {record['file']} (id {number}) has two records; remove one of them")
        else:
            found[number] = _detections(record, dataset, path)
            models[str(record.get("model", ""))] = None
    _warn(path, dataset, len(ids) - len(found), bad, unknown)
    return Predictions(found, tuple(name for name in models if name))


def _warn(path: Path, dataset: DetectionDataset, missing: int, bad: int, unknown: int) -> None:
    if missing:
        why = f" ({bad} of them could not be read)" if bad else ""
        images = counted(missing, "image")
        log.warning("%s: %s of %s without predictions%s; they count as empty", path, images, dataset.name, why)
    if unknown:
        images = counted(unknown, "image")
        log.warning("%s: %s not in %s left out", path, images, dataset.name)


class _Files:
    """The ids of a data set's images by their files; made when the first record has no id of the data set."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self._dataset = dataset
        self._ids: dict[str, int] = {}

    def id_of(self, file: str) -> int | None:
        """The id of the image in a file, or None."""
        if not self._ids:
            numbers = enumerate(self._dataset.image_ids.tolist())
            self._ids = {os.path.realpath(self._dataset.file(index)): number for index, number in numbers}
        return self._ids.get(os.path.realpath(file))


def _detections(record: Record, dataset: DetectionDataset, path: Path) -> Detections:
    """The detections of a record, whose classes are the data set's."""
    rows = record.get("detections")
    try:
        if not isinstance(rows, list):
            raise TypeError(f"found {show(rows)}, expected a list")
        labels = [_label(row, dataset, path) for row in rows]
        boxes = torch.tensor([row["box"] for row in rows], dtype=torch.float32).reshape(-1, 4)
        scores = torch.tensor([row["score"] for row in rows], dtype=torch.float32)
        codes = [row["mask"] for row in rows if "mask" in row]
        masks: CompressedMasks | torch.Tensor | None = (
            decode_masks(codes) if codes and len(codes) == len(rows) else None
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DetError(
            f"{path}: the record of {record['file']} has no usable `detections` ({type(error).__name__}: {error})"
        ) from None
    if masks is None and not rows:  # an image without detections has as many masks as a detector with masks gives
        masks = torch.zeros(0, int(record.get("height", 1)), int(record.get("width", 1)), dtype=torch.bool)
    return Detections(boxes=boxes, scores=scores, labels=torch.tensor(labels, dtype=torch.int64), masks=masks)


def _label(row: Any, dataset: DetectionDataset, path: Path) -> int:
    """The label of a detection; DetError if its class is not that of the data set."""
    label, name, names = row["label"], row.get("class"), dataset.classes.names
    if not isinstance(label, int) or not 0 <= label < len(names) or name not in (None, names[label]):
        raise DetError(
            f"{path}: a detection has label {show(label)} and class {show(name)}, but {dataset.name} has the classes "
            f"{first_few(names)}; evaluate on data with the detector's classes"
        )
    return label


def _read_coco(path: Path) -> list[Record]:
    try:
        records = json.loads(path.read_bytes())
    except OSError as error:
        raise DetError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise DetError(f"{path}: not JSON ({error})") from None
    if not isinstance(records, list) or not all(isinstance(r, dict) and "image_id" in r for r in records):
        raise DetError(f"{path}: expected COCO's results: a list of objects with image_id, category_id, bbox and score")
    return records


def _of_coco(path: Path, records: Sequence[Record], dataset: DetectionDataset) -> Predictions:
    ids = {int(number) for number in dataset.image_ids}
    by_image: dict[int, list[Record]] = {}
    for record in records:
        by_image.setdefault(record["image_id"], []).append(record)
    unknown = [number for number in by_image if number not in ids]
    _warn(path, dataset, 0, 0, len(unknown))
    return Predictions(dict(_converted(path, by_image, ids, dataset)))


def _converted(
    path: Path, by_image: dict[int, list[Record]], ids: set[int], dataset: DetectionDataset
) -> Iterator[tuple[int, Detections]]:
    for number, rows in by_image.items():
        if number in ids:
            try:
                yield number, Detections.from_coco(rows, dataset.classes)
            except DetError as error:
                raise DetError(f"{path}: image id {number}: {error}") from None
