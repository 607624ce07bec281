"""Checks and names of a data set's classes for evaluators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.contracts import DetectionDataset
from det_core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_labels(dataset: DetectionDataset, labels: Sequence[int]) -> None:
    """Raise DataError if the data set has no class for a label."""
    count = len(dataset.classes)
    if labels and not 0 <= min(labels) <= max(labels) < count:
        raise DataError(
            f"{dataset.name}: the detector gives label {max(labels)}, but the data set has "
            f"{count} classes (labels 0..{count - 1}); evaluate on data with the detector's classes"
        )


def class_names(dataset: DetectionDataset) -> list[str]:
    """Unique names of the classes: the id is added if two classes have the same name."""
    classes = dataset.classes
    pairs = zip(classes.names, classes.ids, strict=True)
    return [f"{name} (id {number})" if classes.names.count(name) > 1 else name for name, number in pairs]
