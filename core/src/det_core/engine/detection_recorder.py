"""Keeps the detections of an evaluation, beside its metrics."""

from __future__ import annotations

from typing import Any

from det_core.contracts import DetectionDataset
from det_core.evaluation.class_labels import check_labels
from det_core.structures import Detections


class DetectionRecorder:
    """Detections on a data set as records in COCO's results format, of all images and ranks, ordered by image.

    records: filled at the end of an evaluation.
    """

    def __init__(self, dataset: DetectionDataset) -> None:
        self._dataset = dataset
        self._records: list[dict[str, Any]] = []

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records, by image in the order of the data set, best first in each."""
        return self._records

    @records.setter
    def records(self, rows: list[dict[str, Any]]) -> None:
        place = {int(number): position for position, number in enumerate(self._dataset.image_ids)}
        self._records = sorted(rows, key=lambda row: (place[row["image_id"]], -row["score"]))

    def encode(self, image_id: int, detections: Detections) -> list[dict[str, Any]]:
        """The detections of an image as records; DataError for a label that the data set has no class for."""
        check_labels(self._dataset, detections.labels.tolist())
        return detections.to_coco(image_id, self._dataset.classes)
