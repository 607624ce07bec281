"""Pictures of a data set: its images with their annotations, as they are in the files, or as training sees them.

Letters: C channels, H W the size of a transformed image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from det_core.contracts import DetectionDataset, Sample, Transform
from det_core.data.bad_samples import BadImage
from det_core.data.transforms import apply_transforms
from det_core.reports.drawing import color, draw_targets, save_png, shown
from det_core.specs import RGB, PixelFormat
from det_core.structures import UNLABELLED, Classes, Key

GRAY = 96  # level of unlabelled pixels in pictures of semantic maps


@frozen
class Augmentation:
    """The transforms of training images, and the seed of their random numbers."""

    transforms: tuple[Transform, ...]
    seed: int = 0

    def keys(self, images: int, count: int) -> list[Key]:
        """The keys of `count` pictures: of images evenly distributed over the data set, if necessary in several epochs.

        They are those of training with this seed.
        """
        keys: list[Key] = []
        for epoch in range(-(-count // images)):
            keys += [Key(self.seed, epoch, 0, index) for index in spread_evenly(images, count - len(keys))]
        return keys


def spread_evenly(images: int, count: int) -> list[int]:
    """At most `count` of the positions 0..images-1, evenly distributed."""
    chosen = np.linspace(0, images - 1, min(max(count, 0), images)).round().astype(int)
    positions: list[int] = np.unique(chosen).tolist()
    return positions


def pictures_of(dataset: DetectionDataset, count: int, augmentation: Augmentation | None = None) -> list[str]:
    """The file names of the pictures that `draw_dataset`, or `draw_augmented`, makes of good images."""
    if augmentation is None:
        return [_name(int(dataset.image_ids[index])) for index in spread_evenly(len(dataset), count)]
    return [_name(int(dataset.image_ids[key.index]), key) for key in augmentation.keys(len(dataset), count)]


def _name(image_id: int, key: Key | None = None) -> str:
    return f"{image_id:012d}.png" if key is None else f"{image_id:012d}-epoch-{key.epoch}.png"


def draw_dataset(dataset: DetectionDataset, out_dir: str | Path, count: int = 16) -> list[Path]:
    """Draw the annotations of `count` images, spread evenly over the data set, as PNGs; the files written.

    Images that cannot be read raise BadImage, or are passed over where the data set skips bad samples.
    """
    paths = []
    for index in spread_evenly(len(dataset), count):
        try:
            sample = dataset.load(index)
        except BadImage as error:
            _pass_over(dataset, error)
            continue
        paths.append(Path(out_dir) / _name(sample.image_id))
        save_png(draw_targets(shown(sample.image), sample.targets(), dataset.classes), paths[-1])
    return paths


def draw_augmented(
    dataset: DetectionDataset, augmentation: Augmentation, out_dir: str | Path, count: int = 16
) -> list[Path]:
    """Draw `count` transformed images with their boxes, masks and semantic maps as PNGs; the files written.

    Images that cannot be read raise BadImage, or are passed over where the data set skips bad samples, with those into
    which they would be mixed.
    """
    paths = []
    for key in augmentation.keys(len(dataset), count):
        try:
            sample = apply_transforms(dataset.load(key.index), augmentation.transforms, key, dataset)
        except BadImage as error:
            _pass_over(dataset, error)
            continue
        paths.append(Path(out_dir) / _name(sample.image_id, key))
        save_png(draw_sample(sample, dataset.classes, dataset.pixels), paths[-1])
    return paths


def _pass_over(dataset: DetectionDataset, error: BadImage) -> None:
    """Note a bad image, or raise the error again if the data set does not skip bad samples."""
    if dataset.on_bad_sample == "error":
        raise error
    if error.sample not in dataset.skipped:
        dataset.skipped.append(error.sample)


def draw_sample(sample: Sample, classes: Classes | None = None, pixels: PixelFormat = RGB) -> Tensor:
    """A transformed sample as a picture (3, H', W') uint8: its annotations, and its semantic map to the right, if any.

    The image may be floating point, in 0..255 unless the format of the data set's pixels has 16 bits.
    """
    image = shown(_bytes(sample.image) if pixels.bits == 8 else sample.image)
    picture = draw_targets(image, sample.targets(), classes)
    if sample.semantic is None:
        return picture
    zoom = picture.shape[1] // sample.semantic.shape[0]
    ids = semantic_picture(sample.semantic).repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    return torch.cat([picture, ids], dim=2)


def _bytes(image: Tensor) -> Tensor:
    return image if image.dtype == torch.uint8 else image.round().clamp(0, 255).to(torch.uint8)


def semantic_picture(ids: Tensor) -> Tensor:
    """A semantic map (H, W) uint8 in the colours of its ids, unlabelled pixels gray: (3, H, W) uint8."""
    palette = torch.tensor([color(i) for i in range(256)], dtype=torch.uint8)
    palette[UNLABELLED] = GRAY
    return palette[ids.long()].permute(2, 0, 1)
