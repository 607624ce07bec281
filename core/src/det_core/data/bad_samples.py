"""Errors for bad images and annotations of a data set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from det_core.contracts import BadSample, DetectionDataset
from det_core.errors import DataError, counted, listing
from det_core.specs import OnBadSample

REMEDY = "fix them, or skip them with `--on-bad-sample skip` (`data.on_bad_sample: skip`)"
REPAIR = "; `--on-bad-sample repair` also clips boxes that leave their image"

log = logging.getLogger(__name__)
skipped_log = logging.getLogger("det_core.skipped")  # apart, since the command line lists skipped samples itself


class BadImage(DataError):
    """An image of a data set cannot be used; `sample` has the reason."""

    def __init__(self, sample: BadSample) -> None:
        self.sample = sample
        super().__init__(sample)

    def __str__(self) -> str:
        return str(self.sample)


class BadSamplesError(DataError):
    """A data set has bad samples; `samples` has all of them, the message lists the first few."""

    def __init__(self, name: str, samples: Sequence[BadSample]) -> None:
        self.samples = tuple(samples)
        self.name = name
        super().__init__(name, self.samples)

    def __str__(self) -> str:
        return "\n".join([f"{self.name}: {summary(self.samples)}", *listing(self.samples), REMEDY + REPAIR])


class NoMasksError(DataError):
    """Masks are required, but a data set has none at all."""


class EmptyPartError(DataError):
    """No image of a data set is in the part of it that was asked for."""


def check_part(name: str, images: int, inside: int, part: tuple[float, float] | None) -> None:
    """Raise EmptyPartError if none of the usable images of a data set is in its `part`."""
    if images and not inside:
        raise EmptyPartError(
            f"{name}: no image of {images} is in the part {list(part or ())}, which the content of the files decides; "
            "take a larger `val_fraction` (`part`), or more images"
        )


def summary(samples: Sequence[BadSample]) -> str:
    """`3 bad samples`."""
    return counted(len(samples), "bad sample")


def check_on_bad_sample(value: str) -> None:
    """Raise DataError if the value is none of those that are allowed."""
    if value not in get_args(OnBadSample):
        raise DataError(f"on_bad_sample: found {value!r}, allowed: {', '.join(get_args(OnBadSample))}")


def raise_or_log(name: str, samples: Sequence[BadSample], on_bad_sample: OnBadSample) -> None:
    """Raise BadSamplesError if the data set `name` has bad samples, or log them if they are to be skipped."""
    if samples and on_bad_sample == "error":
        raise BadSamplesError(name, samples)
    if samples:
        skipped_log.warning("%s: skipped %s\n%s", name, summary(samples), "\n".join(listing(samples)))


def no_image_left(name: str, records: str, bad: Sequence[BadSample], filter_empty: bool, min_size: int) -> DataError:
    """The error for a data set of which no image can be used, with the bad samples."""
    settings = f"{summary(bad)}, filter_empty={filter_empty}, min_size={min_size}"
    return DataError("\n".join([f"{name}: no image is left of {records}: {settings}", *listing(bad)]))


def objects_problem(dataset: DetectionDataset) -> str:
    """Why nothing can be learned from a data set or measured on it, or ""."""
    if dataset.trained != 0:
        return ""
    left_out = ", ".join(f"{count} {what}" for what, count in dataset.dropped.items())
    why = f"of its annotations none trains ({left_out})" if left_out else "it has no annotations"
    return f"{dataset.name}: no object is left to learn from: {why}; correct the annotations, or choose other data"


def check_objects(dataset: DetectionDataset) -> None:
    """Raise DataError if a data set has no object to learn from; log a warning if most annotations are unused."""
    if problem := objects_problem(dataset):
        raise DataError(problem)
    unused = sum(dataset.dropped.values())
    if dataset.trained is not None and unused > dataset.trained:
        by_rule = ", ".join(f"{count} {what}" for what, count in dataset.dropped.items())
        total = unused + dataset.trained
        log.warning("%s: %d of %d annotations do not train: %s", dataset.name, unused, total, by_rule)


def bad_image(path: str | Path, image_id: int | None, what: str) -> BadImage:
    """A BadImage for this file."""
    where = "" if image_id is None else f"image id {image_id}: "
    return BadImage(BadSample(where + what, str(path), image_id))
