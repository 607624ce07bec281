"""Reading images, by default as 8-bit RGB, with their EXIF orientation applied.

Letters: H W the size of an image, C its channels.
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

from det_core.data.array_images import array_size, is_array_file, read_array
from det_core.data.bad_samples import bad_image
from det_core.errors import DetError, counted
from det_core.settings import show
from det_core.specs import RGB, PixelFormat

if TYPE_CHECKING:
    from torch import Tensor


# PIL modes of at most 8 bits per channel, which convert to RGB without loss of range.
EIGHT_BIT_MODES = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
)

# PIL modes of one channel of 16 bits; I has 32 bits, of which some formats use 16.
SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})
MOST_16_BITS = 65535

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


def read_image(path: str | Path, image_id: int | None = None, pixels: PixelFormat = RGB) -> Tensor:
    """An image file as (3, H, W) uint8 RGB, channels last in memory, with its EXIF orientation applied.

    pixels: another format, as (C, H, W) uint8, or float32 in 0..65535 of 16 bits. Of one channel, 8-bit images become
    gray; of other numbers than 1 and 3, files must have as many channels as they are stored with. Files whose names end
    in .npy are arrays (H, W, C) of uint8 or uint16 in any format; images of 16 bits and several channels are read only
    from them.

    Raises BadImage with the path if the file is missing, truncated, not an image, or has pixels of another format.
    """
    if is_array_file(path):
        return read_array(path, image_id, pixels)
    with _opened(path, image_id) as image:
        return _upright(image, pixels, path, image_id)


def decode_image(content: bytes, name: str = "bytes", pixels: PixelFormat = RGB) -> Tensor:
    """The bytes of an image file, not of numpy's format, as `read_image` reads a file: by default (3, H, W) uint8 RGB.

    name: of the image, for messages. Raises BadImage as `read_image`.
    """
    with _opened(content, None, name) as image:
        return _upright(image, pixels, name, None)


def read_image_of(
    path: str | Path, image_id: int, size: tuple[int, int], source: str | Path, pixels: PixelFormat = RGB
) -> Tensor:
    """`read_image`, with BadImage also if the image does not have the (height, width) that `source` says."""
    image = read_image(path, image_id, pixels)
    problem = size_problem((int(image.shape[1]), int(image.shape[2])), size, source)
    if problem:
        raise bad_image(path, image_id, problem)
    return image


def image_size(path: str | Path, image_id: int | None = None) -> tuple[int, int]:
    """(height, width) of an image file, with its EXIF orientation applied, without decoding its pixels.

    Raises BadImage as `read_image` does, except for errors that only decoding finds (a truncated file), and whatever
    format the pixels have.
    """
    if is_array_file(path):
        return array_size(path, image_id)
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
            yield image
    except FileNotFoundError:
        raise bad_image(path, image_id, "the image file does not exist") from None
    except UnidentifiedImageError:
        raise bad_image(
            path, image_id, f"not a readable image ({_byte_count(source)}); expected {', '.join(FORMATS)}"
        ) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise bad_image(path, image_id, f"the image cannot be decoded: {error}") from None


def _upright(image: Image.Image, pixels: PixelFormat, path: str | Path, image_id: int | None) -> Tensor:
    """The pixels (C, H, W) of an opened image, as its EXIF orientation shows them; BadImage for other pixels."""
    turn = TURNS.get(_orientation(image))  # before anything decodes the pixels
    problem = format_problem(image, pixels)
    if problem:
        raise bad_image(path, image_id, problem)
    turned = image if turn is None else image.transpose(turn)
    return pixels_of(turned, pixels)


def format_problem(image: Image.Image, pixels: PixelFormat) -> str:
    """Why an image has not the pixels of a format and cannot be converted to it, or ""."""
    if pixels.bits == 8 and image.mode not in EIGHT_BIT_MODES:
        deep = image.mode in SIXTEEN_BIT_MODES
        remedy = ", or set `detector.preprocess.bits: 16`, with one mean and std, to use it as it is" if deep else ""
        return (
            f"pixels of more than 8 bits (PIL mode {image.mode}) are not supported; "
            f"convert the image to 8-bit RGB or gray{remedy}"
        )
    if pixels.bits == 16 and (pixels.channels != 1 or image.mode not in SIXTEEN_BIT_MODES):
        remedy = "convert it to a gray image of 16 bits, or set `bits: 8`"
        if pixels.channels > 1:
            remedy = "images of 16 bits and several channels are read only from .npy files"
        return f"found PIL mode {image.mode}, but the detector takes {pixels} (`detector.preprocess`); {remedy}"
    if pixels.bits == 16 and image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > MOST_16_BITS:
            found = f"found values {values.min()}..{values.max()}"
            return f"{found}, but the detector takes 16-bit images, of 0..{MOST_16_BITS}"
    if pixels.channels not in (1, 3) and len(image.getbands()) != pixels.channels:
        found = counted(len(image.getbands()), "channel")
        return f"found {found} (PIL mode {image.mode}), but the detector takes {pixels} (`detector.preprocess`)"
    return ""


def pixels_of(image: Image.Image, pixels: PixelFormat = RGB) -> Tensor:
    """The pixels (C, H, W) of an image that has no `format_problem`, as it is stored."""
    if pixels.bits == 16:
        return torch.from_numpy(np.array(image).astype(np.float32))[None]
    mode = {1: "L", 3: "RGB"}.get(pixels.channels, image.mode)
    array = np.array(image if image.mode == mode else image.convert(mode))  # a copy that torch may own
    if array.ndim == 2:  # one channel
        array = array[:, :, None]
    return torch.from_numpy(array).permute(2, 0, 1)  # pixel by pixel, as images are resized fastest


def _byte_count(source: str | Path | bytes) -> str:
    try:
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    except OSError:
        return "unreadable"
    return "the file is empty" if size == 0 else f"{size} bytes"
