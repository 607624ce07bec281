"""Semantic maps: for every pixel of an image the id of its class, things (what is detected) and stuff (the rest).

Ids are those of COCO-Stuff's `stuffthingmaps`, or a data set's own: 0..n-1, and 255 where nobody says. Letters: n
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
from det_core.structures import UNLABELLED


@frozen
class SemanticFolder:
    """A folder of PNGs named like the images; `classes` is how many ids they may hold beside 255."""

    folder: Path
    classes: int

    def path(self, image: str) -> Path:
        """The map of an image of this name (relative to the image folder)."""
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
                "the map at the size of the image file",
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
                f"the semantic map has ids that are not allowed: {found} ({wrong.size} of {ids.size} pixels); allowed "
                f"are 0..{self.classes - 1} (`semantic_classes: {self.classes}`) and {UNLABELLED} for unlabelled "
                "pixels; correct the map, or `semantic_classes` of the data set",
            )


def map_name(image: str) -> str:
    """The file of an image's map, relative to the folder of maps: the image's own name, but a PNG."""
    return Path(image).with_suffix(".png").as_posix()


def _read(path: Path, image_id: int) -> NDArray[np.uint8]:
    """The ids of a map, (H, W)."""
    try:
        with Image.open(path) as image:
            if not _holds_ids(image):
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


def _holds_ids(image: ImageFile.ImageFile) -> bool:
    """Whether an opened, not yet decoded file has one byte per pixel, or indices into a palette, as they were saved."""
    return image.format == "PNG" and _mode(image) in ("L", "P")


def _mode(image: ImageFile.ImageFile) -> str:
    """PIL's mode; of gray with less than 8 bits `L;4` and the like, whose values PIL would spread over 0..255."""
    return str(image.tile[0][3]) if (image.format, image.mode) == ("PNG", "L") else image.mode


def map_of_masks(masks: Tensor, labels: Tensor, ignored: Tensor, stuff: int) -> Tensor:
    """A map made of instance masks, where a data set has no other: (H, W) uint8.

    Things have the ids of their labels, all else is `stuff`, and ignored regions are unlabelled. Where things overlap,
    the later one shows.
    """
    ids = torch.full(masks.shape[1:], stuff, dtype=torch.uint8)
    values = torch.where(ignored, UNLABELLED, labels).to(torch.uint8)
    for mask, value in zip(masks, values, strict=True):
        ids[mask.bool()] = value
    return ids
