"""What is wrong with a data set, collected: bad images, bad annotations, and what is done about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from det_core.contracts import BadSample
from det_core.errors import DataError, counted, listing
from det_core.specs import OnBadSample

REMEDY = "fix them, or leave them out with `--on-bad-sample skip` (`data.on_bad_sample: skip`)"


class BadImage(DataError):
    """An image of a data set cannot be used; `sample` says why."""

    def __init__(self, sample: BadSample) -> None:
        self.sample = sample
        super().__init__(sample)

    def __str__(self) -> str:
        return str(self.sample)


class BadSamplesError(DataError):
    """A data set has bad samples; `samples` lists them all, the text the first few."""

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
    """DataError unless it is "error" or "skip"."""
    if value not in get_args(OnBadSample):
        raise DataError(f"on_bad_sample: found {value!r}, allowed: {', '.join(get_args(OnBadSample))}")


def bad_image(path: str | Path, image_id: int | None, what: str) -> BadImage:
    """A BadImage about this file."""
    where = "" if image_id is None else f"image id {image_id}: "
    return BadImage(BadSample(where + what, str(path), image_id))
