"""Errors for bad images and annotations of a data set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from det_core.contracts import BadSample
from det_core.errors import DataError, counted, listing
from det_core.specs import OnBadSample

REMEDY = "fix them, or skip them with `--on-bad-sample skip` (`data.on_bad_sample: skip`)"

log = logging.getLogger(__name__)


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
        return "\n".join([f"{self.name}: {summary(self.samples)}", *listing(self.samples), REMEDY])


def summary(samples: Sequence[BadSample]) -> str:
    """`3 bad samples`."""
    return counted(len(samples), "bad sample")


def check_on_bad_sample(value: str) -> None:
    """Raise DataError if the value is neither "error" nor "skip"."""
    if value not in get_args(OnBadSample):
        raise DataError(f"on_bad_sample: found {value!r}, allowed: {', '.join(get_args(OnBadSample))}")


def raise_or_log(name: str, samples: Sequence[BadSample], on_bad_sample: OnBadSample) -> None:
    """Raise BadSamplesError if the data set `name` has bad samples, or log them if they are to be skipped."""
    if samples and on_bad_sample == "error":
        raise BadSamplesError(name, samples)
    if samples:
        log.warning("%s: skipped %s\n%s", name, summary(samples), "\n".join(listing(samples)))


def bad_image(path: str | Path, image_id: int | None, what: str) -> BadImage:
    """A BadImage for this file."""
    where = "" if image_id is None else f"image id {image_id}: "
    return BadImage(BadSample(where + what, str(path), image_id))
