"""Images in files of numpy's format (.npy): arrays (H, W, C), or (H, W) of one channel.

Letters: H W the size of an image, C its channels.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from det_core.data.bad_samples import bad_image
from det_core.specs import PixelFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SUFFIX = ".npy"
EXPECTED = "an array (height, width, channels) of uint8 or uint16"


def is_array_file(path: str | Path) -> bool:
    """Whether a path is one of a file in numpy's format, by its suffix."""
    return os.path.splitext(path)[1].lower() == SUFFIX


def read_array(path: str | Path, image_id: int | None, pixels: PixelFormat) -> Tensor:
    """The image (C, H, W) of a file: uint8, or float32 in 0..65535 of 16 bits.

    Raises:
        BadImage: if the file is missing, no such array, or has not these pixels.
    """
    array = _opened(path, image_id)
    bits, channels = array.dtype.itemsize * 8, array.shape[2]
    if bits != pixels.bits or channels != pixels.channels:
        found = PixelFormat(channels, 8 if bits == 8 else 16)
        raise bad_image(path, image_id, f"the array has {found}, but the detector takes {pixels}")
    # A copy pixel by pixel, which torch may own: the file is only mapped.
    copied = np.array(array, np.uint8 if bits == 8 else np.float32, order="C")
    return torch.from_numpy(copied).permute(2, 0, 1)


def array_size(path: str | Path, image_id: int | None) -> tuple[int, int]:
    """(height, width) of the image of a file, without reading its pixels; BadImage as `read_array`."""
    height, width, _ = _opened(path, image_id).shape
    return height, width


def _opened(path: str | Path, image_id: int | None) -> NDArray[Any]:
    """The array (H, W, C) of a file, mapped into memory; BadImage if it is no image."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("it is a folder, a device or a pipe, not a file")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise bad_image(path, image_id, "the image file does not exist") from None
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise bad_image(path, image_id, f"not a readable array ({error}); expected {EXPECTED}") from None
    if not isinstance(array, np.ndarray):  # an archive of several arrays
        array.close()
        raise bad_image(path, image_id, f"an archive of arrays, expected {EXPECTED}")
    shaped = array[:, :, None] if array.ndim == 2 else array
    if shaped.ndim != 3 or 0 in shaped.shape or array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise bad_image(path, image_id, f"an array {array.shape} of {array.dtype}, expected {EXPECTED}")
    return shaped
