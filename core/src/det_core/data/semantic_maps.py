"""Semantic maps: the class id of every pixel of an image, things (the detected classes) and stuff (the rest).

Ids are those of COCO-Stuff's `stuffthingmaps`, or the data set's: 0..n-1, and 255 for unlabelled pixels. Letters: n
annotations, H W the size of an image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image, ImageFile
from torch import Tensor

from det_core.data.bad_samples import bad_image
from det_core.data.images import open_file
from det_core.structures import UNLABELLED


@frozen
class SemanticFolder:
    """A folder of PNGs named like the images. They may contain the ids 0..classes-1 and 255."""

    folder: Path
    classes: int

    def path(self, image: str) -> Path:
        """The path of the map of an image, whose name is relative to the image folder."""
        return self.folder / map_name(image)

    def load(self, image: str, size: tuple[int, int], image_id: int) -> Tensor:
        """The map of an image of (height, width) as (H, W) uint8; BadImage if it cannot be used."""
        path = self.path(image)
        ids = _read(path, image_id)
        if ids.shape != size:
            raise bad_image(
                path,
                image_id,
                f"the semantic map is {ids.shape[1]}x{ids.shape[0]} pixels, but its image {size[1]}x{size[0]}; make "
                "the map in the size of the image file",
            )
        self._check_ids(ids, path, image_id)
        return torch.from_numpy(ids)

    def _check_ids(self, ids: NDArray[np.uint8], path: Path, image_id: int) -> None:
        wrong = ids[(ids >= self.classes) & (ids != UNLABELLED)]
        if wrong.size:
            found = ", ".join(map(str, np.unique(wrong)[:8]))
            raise bad_image(
                path,
                image_id,
                f"the semantic map has ids that are not allowed: {found} ({wrong.size} of {ids.size} pixels); allowed: "
                f"0..{self.classes - 1} (`semantic_classes: {self.classes}`) and {UNLABELLED} for unlabelled pixels; "
                "correct the map, or `semantic_classes` of the data set",
            )


def map_name(image: str) -> str:
    """The file of an image's map, relative to the folder of maps: the image's name with the suffix .png."""
    return Path(image).with_suffix(".png").as_posix()


def _read(path: Path, image_id: int) -> NDArray[np.uint8]:
    """The ids of a map, (H, W)."""
    try:
        with open_file(path) as image:
            if not _has_ids(image):
                raise bad_image(
                    path,
                    image_id,
                    "a semantic map is a PNG of one channel of 8 bits, the class id of each pixel (mode L, or P with "
                    f"any palette), but this is a {image.format} of mode {_mode(image)}; save the ids as an 8-bit gray "
                    "PNG",
                )
            return np.array(image)
    except FileNotFoundError:
        raise bad_image(path, image_id, "the semantic map does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise bad_image(path, image_id, f"the semantic map cannot be decoded: {error}") from None


def _has_ids(image: ImageFile.ImageFile) -> bool:
    """Whether an opened, not yet decoded file has one byte or one palette index per pixel."""
    return image.format == "PNG" and _mode(image) in ("L", "P")


def _mode(image: ImageFile.ImageFile) -> str:
    """PIL's mode, but `L;4` etc. for gray with less than 8 bits, which PIL would scale to 0..255."""
    return str(image.tile[0][3]) if (image.format, image.mode) == ("PNG", "L") else image.mode


def map_of_masks(masks: Tensor, labels: Tensor, ignored: Tensor, stuff: int) -> Tensor:
    """A semantic map (H, W) uint8 from instance masks (n, H, W), labels (n,) and ignored (n,), for data without maps.

    Things have the ids of their labels, other pixels are `stuff`, and ignored regions are unlabelled. If things
    overlap, the later one is used.
    """
    ids = torch.full(masks.shape[1:], stuff, dtype=torch.uint8)
    values = torch.where(ignored, UNLABELLED, labels).to(torch.uint8)
    for mask, value in zip(masks, values, strict=True):
        ids[mask.bool()] = value
    return ids
