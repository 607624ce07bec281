"""What is taken as an image: files, bytes of files, tensors, arrays, PIL images, and samples of a data set.

Letters: h w original image size, n images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from torch import Tensor

from det_core.contracts import Sample
from det_core.data.images import EIGHT_BIT_MODES, decode_image, read_image
from det_core.errors import DetError
from det_core.settings import show

Order = Literal["rgb", "bgr"]
Image: TypeAlias = "str | Path | bytes | Tensor | NDArray[np.uint8] | PILImage.Image | Sample"
ALLOWED = "a path, the bytes of a file, a (3, h, w) tensor, an (h, w, 3) array, a PIL image or a Sample"


def is_image(images: Image | Sequence[Image]) -> TypeGuard[Image]:
    """Whether this is one image rather than several; tensors and arrays are always one."""
    return isinstance(images, (str, Path, bytes, Tensor, np.ndarray, PILImage.Image, Sample))


def to_sample(image: Image, order: Order = "rgb") -> Sample:
    """An image as a sample without annotations; a sample is returned unchanged.

    order: the channels of tensors and arrays. The pixels of a PIL image are taken as they are, those of a file with its
    EXIF orientation.

    Raises:
        DataError: for a file, or bytes, that cannot be read.
        DetError: for another type, shape or dtype.
    """
    if isinstance(image, Sample):
        return image
    file = ""
    if isinstance(image, Tensor):
        _check(image, 0, "(3, h, w)")
        pixels = _in_order(image.cpu(), order)
    elif isinstance(image, np.ndarray):
        _check(image, 2, "(h, w, 3)")
        pixels = _in_order(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), order)
    elif isinstance(image, PILImage.Image):
        pixels = _of_pil(image)
    elif isinstance(image, (str, Path)):
        pixels, file = read_image(image), str(image)
    elif isinstance(image, bytes):
        pixels = decode_image(image)
    else:
        raise DetError(f"an image is {show(image)} ({type(image).__name__}), expected {ALLOWED}")
    return Sample(
        image=pixels,
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        ignored=torch.zeros(0, dtype=torch.bool),
        file=file,
    )


def _check(image: Tensor | NDArray[np.uint8], channels_at: int, shape: str) -> None:
    """Raise DetError for an image without pixels, of another shape or of another dtype."""
    sizes = tuple(image.shape)
    if len(sizes) != 3 or sizes[channels_at] != 3 or 0 in sizes or image.dtype not in (torch.uint8, np.uint8):
        raise DetError(f"an image is {type(image).__name__} {sizes} of {image.dtype}, expected {shape} of uint8")


def _in_order(pixels: Tensor, order: Order) -> Tensor:
    """Pixels (3, h, w) as RGB."""
    return pixels.flip(0) if order == "bgr" else pixels


def _of_pil(image: PILImage.Image) -> Tensor:
    if image.mode not in EIGHT_BIT_MODES:
        raise DetError(
            f"a PIL image has mode {image.mode}, expected 8 bits per channel; convert it with .convert('RGB')"
        )
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
