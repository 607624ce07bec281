"""What an evaluator is: it turns each image's detections into plain records, and all records into metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from det_core.data.dataset import DataError, DetectionDataset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from det_core.structures import Detections


@frozen(kw_only=True)
class EvaluationResult:
    """Metrics by name, as fractions of 1; nan where there is nothing to measure (no ground truth).

    per_class: metrics of each class by its name. table: the same as text of at most 80 columns for a terminal.
    """

    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]] = field(factory=dict)
    table: str = ""


class Evaluator(ABC):
    """A metric on one data set.

    `encode` is called for every image, on whichever rank has it; the records of all ranks then go to one `compute`.
    """

    @abstractmethod
    def encode(self, image_id: int, detections: Detections) -> list[dict[str, Any]]:
        """The detections of an image as records that JSON can hold; boxes in pixels of the original image."""

    @abstractmethod
    def compute(self, results: list[dict[str, Any]]) -> EvaluationResult:
        """Metrics from the records of all images; none at all is a result too."""


def check_labels(dataset: DetectionDataset, labels: Sequence[int]) -> None:
    """DataError for a label that the data set has no class for."""
    count = len(dataset.classes)
    if labels and not 0 <= min(labels) <= max(labels) < count:
        raise DataError(
            f"{dataset.name}: the detector gives label {max(labels)}, but the data set has "
            f"{count} classes (labels 0..{count - 1}); evaluate on the data set that it was made for"
        )


def class_names(dataset: DetectionDataset) -> list[str]:
    """Names of the classes, told apart by their id where two are the same."""
    classes = dataset.classes
    pairs = zip(classes.names, classes.ids, strict=True)
    return [f"{name} (id {number})" if classes.names.count(name) > 1 else name for name, number in pairs]
