"""Reading images as 8-bit RGB, with their EXIF orientation applied.

Letters: H W the size of an image.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from det_core.data.bad_samples import bad_image
from det_core.errors import DetError
from det_core.settings import show

if TYPE_CHECKING:
    from torch import Tensor


# PIL modes of at most 8 bits per channel, which convert to RGB without loss of range.
EIGHT_BIT_MODES = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
)

MAX_PIXELS = 178_956_970  # PIL's limit: a small file can hold an image that takes all memory
MAX_PIXELS_VARIABLE = "DET_MAX_IMAGE_PIXELS"  # of the environment: another limit

# Formats of pixels. PIL has others that start another program (EPS) or hold no pixels, whatever a file is called.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "TGA", "PCX", "SGI", "ICO")

QUARTER_TURNS = (5, 6, 7, 8)  # values of EXIF's orientation that swap height and width
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | Path, image_id: int | None = None) -> Tensor:
    """An image file as (3, H, W) uint8 RGB, channels last in memory, with its EXIF orientation applied.

    Raises BadImage with the path if the file is missing, truncated, not an image, or has more than 8 bits per channel.
    """
    with _opened(path, image_id) as image:
        return _upright(image)


def decode_image(content: bytes, name: str = "bytes") -> Tensor:
    """The bytes of an image file, as `read_image` reads a file: (3, H, W) uint8 RGB.

    name: of the image, for messages. Raises BadImage as `read_image`.
    """
    with _opened(content, None, name) as image:
        return _upright(image)


def read_image_of(path: str | Path, image_id: int, size: tuple[int, int], source: str | Path) -> Tensor:
    """`read_image`, with BadImage also if the image does not have the (height, width) that `source` says."""
    image = read_image(path, image_id)
    problem = size_problem((int(image.shape[1]), int(image.shape[2])), size, source)
    if problem:
        raise bad_image(path, image_id, problem)
    return image


def image_size(path: str | Path, image_id: int | None = None) -> tuple[int, int]:
    """(height, width) of an image file, with its EXIF orientation applied, without decoding its pixels.

    Raises BadImage as `read_image` does, except for errors that only decoding finds (a truncated file).
    """
    with _opened(path, image_id) as image:
        width, height = image.size
        return (width, height) if _orientation(image) in QUARTER_TURNS else (height, width)


def open_file(path: str | Path | bytes) -> ImageFile.ImageFile:
    """An image file, or its content as bytes, opened by PIL, its pixels not yet decoded.

    Raises:
        OSError: it is missing, a folder, a device or a pipe (which may have no end), or in none of the `FORMATS`.
    """
    if not isinstance(path, bytes) and not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("it is a folder, a device or a pipe, not a file")
    with warnings.catch_warnings():  # of damaged EXIF, and of images that are only half as large as PIL refuses
        warnings.simplefilter("ignore")
        limit = _max_pixels()
        try:
            return Image.open(path if isinstance(path, (str, Path)) else io.BytesIO(path), formats=FORMATS)
        except Image.DecompressionBombError:
            what = f"it has more than {limit} pixels; to allow it, set the environment variable {MAX_PIXELS_VARIABLE}"
            raise OSError(what) from None


@cache
def _max_pixels() -> int:
    """The maximum number of pixels of an image, by the environment; DetError if that is no number."""
    text = os.environ.get(MAX_PIXELS_VARIABLE)
    if text is None:
        return MAX_PIXELS
    if not text.isdecimal() or not 0 < int(text) < 2**40:
        raise DetError(f"{MAX_PIXELS_VARIABLE}: found {show(text)}, expected a number of pixels below 2^40")
    Image.MAX_IMAGE_PIXELS = -(-int(text) // 2)  # PIL warns above this number, and refuses above twice of it
    return int(text)


def size_problem(found: tuple[int, int], annotated: tuple[int, int], source: str | Path) -> str:
    """The problem if an image's (height, width) differs from that of its annotations, or ""."""
    if found == annotated:
        return ""
    return (
        f"the image is {found[1]}x{found[0]} pixels (with its EXIF orientation), but {source} says "
        f"{annotated[1]}x{annotated[0]}; correct the sizes, or the image's orientation"
    )


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation of an opened image, 1 to 8; 1 (as stored) if there is none, or EXIF that cannot be read.

    Only what stands before the pixels counts: PIL reads the end of a PNG only when it decodes the pixels, and the size
    of an image is not to depend on whether it was decoded.
    """
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return 1
    return value if isinstance(value, int) and value in range(1, 9) else 1


@contextmanager
def _opened(source: str | Path | bytes, image_id: int | None, name: str = "") -> Iterator[Image.Image]:
    """Open an image file, or its bytes of a name; BadImage for errors on opening and while it is used."""
    path = name if isinstance(source, bytes) else source
    try:
        with open_file(source) as image:
            if image.mode not in EIGHT_BIT_MODES:
                raise bad_image(
                    path,
                    image_id,
                    f"pixels of more than 8 bits (PIL mode {image.mode}) are not supported; "
                    "convert the image to 8-bit RGB or gray",
                )
            yield image
    except FileNotFoundError:
        raise bad_image(path, image_id, "the image file does not exist") from None
    except UnidentifiedImageError:
        raise bad_image(
            path, image_id, f"not a readable image ({_byte_count(source)}); expected {', '.join(FORMATS)}"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise bad_image(path, image_id, f"the image cannot be decoded: {error}") from None


def _upright(image: Image.Image) -> Tensor:
    """The pixels (3, H, W) of an opened image, as its EXIF orientation shows them."""
    turn = TURNS.get(_orientation(image))
    turned = image if turn is None else image.transpose(turn)
    return _pixels(turned if turned.mode == "RGB" else turned.convert("RGB"))


def _pixels(image: Image.Image) -> Tensor:
    array = np.array(image)  # (H, W, 3), a copy that torch may own
    return torch.from_numpy(array).permute(2, 0, 1)  # pixel by pixel, as images are resized fastest


def _byte_count(source: str | Path | bytes) -> str:
    try:
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    except OSError:
        return "unreadable"
    return "the file is empty" if size == 0 else f"{size} bytes"
