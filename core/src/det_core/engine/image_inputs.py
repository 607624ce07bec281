"""What is taken as an image: files, bytes of files, tensors, arrays, PIL images, and samples of a data set.

Letters: h w original image size, n images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from torch import Tensor

from det_core.contracts import Sample
from det_core.data.images import EIGHT_BIT_MODES, decode_image, format_problem, pixels_of, read_image
from det_core.errors import DetError
from det_core.settings import show
from det_core.specs import RGB, PixelFormat

Order = Literal["rgb", "bgr"]
Image: TypeAlias = "str | Path | bytes | Tensor | NDArray[Any] | PILImage.Image | Sample"
DTYPES = {8: (torch.uint8, np.uint8), 16: (torch.uint16, np.uint16, torch.float32, np.float32)}
ALLOWED = "a path, the bytes of a file, a (3, h, w) tensor, an (h, w, 3) array, a PIL image or a Sample"


def is_image(images: Image | Sequence[Image]) -> TypeGuard[Image]:
    """Whether this is one image rather than several; tensors and arrays are always one."""
    return isinstance(images, (str, Path, bytes, Tensor, np.ndarray, PILImage.Image, Sample))


def to_sample(image: Image, order: Order = "rgb", pixels: PixelFormat = RGB) -> Sample:
    """An image as a sample without annotations; a sample is returned unchanged.

    order: the channels of tensors and arrays. The pixels of a PIL image are taken as they are, those of a file with its
    EXIF orientation. pixels: the format that the detector takes; tensors and arrays of 16 bits are uint16, or float32
    in 0..65535.

    Raises:
        DataError: for a file, or bytes, that cannot be read.
        DetError: for another type, shape or dtype.
    """
    if isinstance(image, Sample):
        return image
    file = ""
    if isinstance(image, Tensor):
        _check(image, 0, pixels)
        values = _in_order(_converted(image.cpu(), pixels), order)
    elif isinstance(image, np.ndarray):
        _check(image, 2, pixels)
        values = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        values = _in_order(_converted(values, pixels), order)
    elif isinstance(image, PILImage.Image):
        values = _of_pil(image, pixels)
    elif isinstance(image, (str, Path)):
        values, file = read_image(image, pixels=pixels), str(image)
    elif isinstance(image, bytes):
        values = decode_image(image, pixels=pixels)
    else:
        raise DetError(f"an image is {show(image)} ({type(image).__name__}), expected {ALLOWED}")
    return Sample(
        image=values,
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        ignored=torch.zeros(0, dtype=torch.bool),
        file=file,
    )


def _check(image: Tensor | NDArray[Any], channels_at: int, pixels: PixelFormat) -> None:
    """Raise DetError for an image without pixels, of another shape or of another dtype."""
    sizes, count = tuple(image.shape), pixels.channels
    if len(sizes) != 3 or sizes[channels_at] != count or 0 in sizes or image.dtype not in DTYPES[pixels.bits]:
        shape = f"({count}, h, w)" if channels_at == 0 else f"(h, w, {count})"
        kinds = "uint8" if pixels.bits == 8 else "uint16 or float32"
        raise DetError(f"an image is {type(image).__name__} {sizes} of {image.dtype}, expected {shape} of {kinds}")


def _converted(values: Tensor, pixels: PixelFormat) -> Tensor:
    """Values (C, h, w) as samples have them: uint8, or float32 of 16 bits."""
    return values if pixels.bits == 8 else values.to(torch.float32)


def _in_order(pixels: Tensor, order: Order) -> Tensor:
    """Pixels (C, h, w) as RGB, if they are colours."""
    return pixels.flip(0) if order == "bgr" else pixels


def _of_pil(image: PILImage.Image, pixels: PixelFormat) -> Tensor:
    if pixels != RGB:
        problem = format_problem(image, pixels)
        if problem:
            raise DetError(f"a PIL image: {problem}")
        return pixels_of(image, pixels)
    if image.mode not in EIGHT_BIT_MODES:
        raise DetError(
            f"a PIL image has mode {image.mode}, expected 8 bits per channel; convert it with .convert('RGB')"
        )
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
