"""Images that are transformed for a detector, in any thread or loader process, and their detections.

Letters: h w original image size.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Sequence

from attrs import frozen

from det_core.contracts import Sample, Transform
from det_core.data.loader import LoadedImage, prepare
from det_core.data.placement import cropped
from det_core.engine.predict import built_views, detect_views
from det_core.engine.same_size import padded_size
from det_core.engine.test_time_augmentation import Augmentation
from det_core.engine.tiling import Tile, Tiling, merge_tiles
from det_core.errors import DetError
from det_core.model.detector import Detector
from det_core.slots import TransformConfig
from det_core.structures import Detections, Key

_transforming = threading.Lock()  # transforms draw from torch's global generator, of which there is one per process


def _new_lock() -> None:
    """Another thread may hold the lock while the process forks; in the new process nobody would release it."""
    global _transforming
    _transforming = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


@frozen(eq=False)
class PreparedImage:
    """An image in each view; or `whole`, without views, if it is detected on tiles."""

    views: tuple[LoadedImage, ...] = ()
    whole: Sample | None = None

    def padded_sizes(self, divisor: int) -> Hashable:
        """What images that are detected at once have in common: the padded sizes of their views."""
        return id(self) if self.whole is not None else tuple(padded_size(view, divisor) for view in self.views)


@frozen(eq=False)
class Preparation:
    """The views of an image, and the tiles of a large one. Picklable and thread-safe.

    views and tile_views: the transforms of each, and whether it is mirrored; tile_views are those of a tile.
    """

    views: tuple[tuple[tuple[Transform, ...], bool], ...]
    tile_views: tuple[tuple[tuple[Transform, ...], bool], ...]
    augmentation: Augmentation
    tiling: Tiling | None

    @classmethod
    def of(
        cls, transforms: Sequence[TransformConfig], augmentation: Augmentation | None, tiling: Tiling | None
    ) -> Preparation:
        """The preparation for test transforms; DetError as `Augmentation.views`."""
        augmentation = augmentation or Augmentation()
        on_tiles = transforms if tiling is None else tiling.transforms(transforms)
        views, tile_views = (
            tuple((tuple(steps), mirrored) for steps, mirrored in built_views(given, augmentation))
            for given in (transforms, on_tiles)
        )
        return cls(views, tile_views, augmentation, tiling)

    def __call__(self, sample: Sample) -> PreparedImage:
        """The image in each view; a large one stays as it is, and its tiles are cut when they are detected.

        Raises:
            DetError: for a large image with proposals, which are not divided among tiles.
        """
        if self.tiling is None or self.tiling.fits(sample.size):
            return PreparedImage(_viewed(sample, self.views))
        if sample.proposals is not None:
            raise DetError("images with proposals cannot be divided into tiles; remove the tile size")
        return PreparedImage(whole=sample)

    @property
    def mirrored(self) -> list[bool]:
        """For each view."""
        return [mirrored for _, mirrored in self.views]


def detect(
    detector: Detector, images: Sequence[PreparedImage], preparation: Preparation, precision: str, batch_size: int
) -> list[Detections]:
    """The detections of each image, best first, in pixels of the original image, on the CPU.

    batch_size: tiles of an image that are detected at once; images without tiles are all detected at once, if they are
    padded to one size.
    """
    plain = [image for image in images if image.whole is None]
    seen = [[image.views[i] for image in plain] for i in range(len(preparation.views))]
    views = detect_views(detector, seen, preparation.mirrored, precision, preparation.augmentation) if plain else []
    found = iter(views)
    return [
        next(found) if image.whole is None else _on_tiles(detector, image.whole, preparation, precision, batch_size)
        for image in images
    ]


def _on_tiles(
    detector: Detector, sample: Sample, preparation: Preparation, precision: str, batch_size: int
) -> Detections:
    """The detections of a large image, from its tiles."""
    tiling, views, augmentation = preparation.tiling, preparation.tile_views, preparation.augmentation
    assert tiling is not None  # whoever prepared the image left it whole
    tiles, found = tiling.tiles(sample.size), list[Detections]()
    mirrored = [mirror for _, mirror in views]
    for start in range(0, len(tiles), batch_size):
        shown = [_viewed(_cut_out(sample, tile), views) for tile in tiles[start : start + batch_size]]
        seen = [[image[i] for image in shown] for i in range(len(views))]
        found += detect_views(detector, seen, mirrored, precision, augmentation)
    return merge_tiles(found, tiles, sample.size, tiling, augmentation.nms_threshold)


def _viewed(sample: Sample, views: Sequence[tuple[tuple[Transform, ...], bool]]) -> tuple[LoadedImage, ...]:
    with _transforming:
        return tuple(prepare(sample, transforms, Key()) for transforms, _ in views)


def _cut_out(sample: Sample, tile: Tile) -> Sample:
    """A tile of an image, without annotations."""
    image, _ = cropped(sample.image, None, tile)
    none = slice(0, 0)
    boxes, labels, ignored = sample.boxes[none], sample.labels[none], sample.ignored[none]
    return Sample(image=image, boxes=boxes, labels=labels, ignored=ignored, file=sample.file)
