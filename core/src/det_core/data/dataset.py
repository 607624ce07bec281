"""What a data set is: images with annotations, and what may be wrong with them.

Letters: H W the size of an image, n its annotations, N the data set's images. Boxes are xyxy in pixels of the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from det_core.contracts import BadSample, DetectionDataset
from det_core.errors import DataError, counted, listing

if TYPE_CHECKING:
    from torch import Tensor

ON_BAD_SAMPLE = ("error", "skip")
REMEDY = "fix them, or leave them out with `--on-bad-sample skip` (`data.on_bad_sample: skip`)"

# PIL modes of 8 bits per channel (or fewer) that turn into RGB without loss of range.
EIGHT_BIT_MODES = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
)

QUARTER_TURNS = (5, 6, 7, 8)  # values of EXIF's orientation that swap height and width


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
    if value not in ON_BAD_SAMPLE:
        raise DataError(f"on_bad_sample: found {value!r}, allowed: {', '.join(ON_BAD_SAMPLE)}")


def check_same_categories(train: DetectionDataset, val: DetectionDataset) -> None:
    """DataError if two data sets do not have the same classes under the same labels."""
    problems = category_mismatch(train, val)
    if problems:
        raise DataError(
            "\n".join(
                [
                    f"{train.name} and {val.name} do not have the same categories:",
                    *listing(problems),
                    "make `categories` (names and ids) of both annotation files the same; in VOC format give both data "
                    "sets the same `classes`",
                ]
            )
        )


def category_mismatch(train: DetectionDataset, val: DetectionDataset) -> list[str]:
    """What differs between the classes of two data sets, a line each; empty if they agree."""
    ours = dict(zip(train.classes.ids, train.classes.names, strict=True))
    theirs = dict(zip(val.classes.ids, val.classes.names, strict=True))
    lines = []
    for number in sorted({*ours, *theirs}):
        if number not in theirs:
            lines.append(f"id {number}: {ours[number]!r} is only in {train.name}")
        elif number not in ours:
            lines.append(f"id {number}: {theirs[number]!r} is only in {val.name}")
        elif ours[number] != theirs[number]:
            lines.append(f"id {number}: {ours[number]!r} in {train.name}, but {theirs[number]!r} in {val.name}")
    return lines


def read_image(path: str | Path, image_id: int | None = None) -> Tensor:
    """An image file as (3, H, W) uint8 RGB, turned as its EXIF orientation says.

    Raises BadImage with the path if the file is missing, truncated, no image, or of more than 8 bits per channel.
    """
    with _opened(path, image_id) as image:
        return _pixels(ImageOps.exif_transpose(image).convert("RGB"))


def read_image_of(path: str | Path, image_id: int, size: tuple[int, int], source: str | Path) -> Tensor:
    """`read_image` of an image that `source` says is of this (height, width); BadImage also where it is not."""
    image = read_image(path, image_id)
    problem = size_problem((int(image.shape[1]), int(image.shape[2])), size, source)
    if problem:
        raise bad_image(path, image_id, problem)
    return image


def image_size(path: str | Path, image_id: int | None = None) -> tuple[int, int]:
    """(height, width) of an image file, turned as its EXIF orientation says, without decoding its pixels.

    Raises BadImage as `read_image` does, but for what only the pixels show (a truncated file).
    """
    with _opened(path, image_id) as image:
        width, height = image.size
        plain = image.format == "PNG" and "exif" not in image.info  # to look further, PIL would decode the pixels
        turned = not plain and image.getexif().get(ExifTags.Base.Orientation) in QUARTER_TURNS
        return (width, height) if turned else (height, width)


def size_problem(found: tuple[int, int], said: tuple[int, int], source: str | Path) -> str:
    """What is wrong where an image's (height, width) is not what its annotations say; empty if nothing is."""
    if found == said:
        return ""
    return (
        f"the image is {found[1]}x{found[0]} pixels (turned as its EXIF data say), but {source} says "
        f"{said[1]}x{said[0]}; correct the sizes, or the image's orientation"
    )


@contextmanager
def _opened(path: str | Path, image_id: int | None) -> Iterator[Image.Image]:
    """An image file, opened by its header; BadImage for what goes wrong with it then or while it is used."""
    try:
        with Image.open(path) as image:
            if image.mode not in EIGHT_BIT_MODES:
                raise bad_image(
                    path,
                    image_id,
                    f"pixels of more than 8 bits (PIL mode {image.mode}) are not taken; "
                    "convert the image to 8-bit RGB or gray",
                )
            yield image
    except FileNotFoundError:
        raise bad_image(path, image_id, "the image file does not exist") from None
    except UnidentifiedImageError:
        raise bad_image(path, image_id, f"not an image that can be read ({_byte_count(path)})") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise bad_image(path, image_id, f"the image cannot be decoded: {error}") from None


def bad_image(path: str | Path, image_id: int | None, what: str) -> BadImage:
    """A BadImage about this file."""
    where = "" if image_id is None else f"image id {image_id}: "
    return BadImage(BadSample(where + what, str(path), image_id))


def _pixels(image: Image.Image) -> Tensor:
    array = np.array(image)  # (H, W, 3), a copy that torch may own
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def _byte_count(path: str | Path) -> str:
    try:
        size = Path(path).stat().st_size
    except OSError:
        return "unreadable"
    return "the file is empty" if size == 0 else f"{size} bytes"
