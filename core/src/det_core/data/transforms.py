"""Transforms of samples: resizing, flipping, colour jitter, on top of torchvision's `transforms.v2`.

A transform is any callable from `Sample` to `Sample`; `V2` wraps a v2 transform. Letters: n annotations, p proposals, H
W the size of an image.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import attrs
import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from det_core.compressed_masks import CompressedMasks, bitmaps_of
from det_core.contracts import (
    CompressedMasksTransform,
    MixingTransform,
    PlacingTransform,
    Sample,
    Samples,
    Transform,
)
from det_core.data.data_config import ColorJitterConfig, FlipConfig, ResizeConfig
from det_core.data.placement import clipped, drawn
from det_core.data.random_numbers import happens, seeded
from det_core.data.resize import Arithmetic, flip_image, mirror, resize_image
from det_core.structures import Key

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MIN_SIDE = 1e-3  # pixels; smaller boxes are dropped after the transforms


def apply_transforms(
    sample: Sample, transforms: Iterable[Transform], key: Key, others: Samples | None = None
) -> Sample:
    """Apply transforms to a sample, in order. All randomness depends only on `key`.

    Then boxes are clipped to the image, and empty boxes are dropped, with their labels and masks. Compressed masks stay
    so, but for transforms that need bitmaps. A canvas is drawn only for transforms that need its pixels.

    others: the samples that a `MixingTransform` draws from, usually the data set. The ones that it draws, and how they
    are transformed, depend on `key`, too.

    Raises:
        DataError: by a `MixingTransform`, if there are no others.
    """
    return _transformed(sample, joined(transforms), key, others, "transforms")


def _transformed(
    sample: Sample, transforms: Sequence[Transform], key: Key, others: Samples | None, consumer: str
) -> Sample:
    """As `apply_transforms`, of joined transforms. consumer: the name under which the key gives random numbers."""
    compressed = isinstance(sample.masks, CompressedMasks)
    with seeded(key.number(consumer)):
        for position, transform in enumerate(transforms):
            if isinstance(sample.masks, CompressedMasks) and not _takes_compressed_masks(transform):
                sample = attrs.evolve(sample, masks=bitmaps_of(sample.masks))
            if others is not None and _mixes(transform):
                names = (f"{consumer}/{position}/{number}" for number in itertools.count())
                another = partial(_another, transforms[:position], key, others, names)
                sample = transform.mix(drawn(sample), another)
            else:
                sample = transform.on_canvas(sample) if _reads_canvases(transform) else transform(drawn(sample))
    sample = within_image(drawn(sample))
    if compressed and isinstance(sample.masks, Tensor):
        sample = attrs.evolve(sample, masks=CompressedMasks.of_bitmaps(sample.masks))
    return sample


def _another(transforms: Sequence[Transform], key: Key, others: Samples, consumers: Iterator[str]) -> Sample:
    """One of the others, each with the same probability, after these transforms with random numbers of its own."""
    index = int(torch.randint(len(others), ()))
    return _transformed(others.load(index), transforms, key, others, next(consumers))


# What isinstance says of these protocols, which in Python 3.11 takes it longer than a small transform takes.
def _takes_compressed_masks(transform: Transform) -> TypeGuard[CompressedMasksTransform]:
    return hasattr(transform, "takes_compressed_masks")


def _reads_canvases(transform: Transform) -> TypeGuard[PlacingTransform]:
    return hasattr(transform, "on_canvas")


def _mixes(transform: Transform) -> TypeGuard[MixingTransform]:
    return hasattr(transform, "mix")


def within_image(sample: Sample) -> Sample:
    """The sample with its boxes and proposals clipped to its image.

    Those less than `MIN_SIDE` wide or high are dropped, with their labels and masks.
    """
    boxes, proposals = clipped(sample.boxes, sample.size), sample.proposals
    if proposals is not None:
        proposals = clipped(proposals, sample.size)
        proposals = _rows(proposals, _has_extent(proposals))
    keep = _has_extent(boxes)
    if keep.all():
        return attrs.evolve(sample, boxes=boxes, proposals=proposals)
    return attrs.evolve(
        sample,
        boxes=_rows(boxes, keep),
        proposals=proposals,
        labels=_rows(sample.labels, keep),
        ignored=_rows(sample.ignored, keep),
        masks=None if sample.masks is None else sample.masks[torch.from_numpy(keep)],
    )


# Few rows: numpy takes less than half of torch's time.
def _has_extent(boxes: Tensor) -> NDArray[np.bool_]:
    """(n,) whether boxes are at least `MIN_SIDE` wide and high."""
    corners = boxes.numpy()
    large = (corners[:, 2:] - corners[:, :2]) >= MIN_SIDE
    return large[:, 0] & large[:, 1]


def _rows(x: Tensor, keep: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(x.numpy()[keep])


class V2:
    """Wraps a v2 transform (or any function of a dict of tv_tensors) as a transform of samples.

    It must keep the number and order of boxes, and make removed boxes empty, as v2's crops do. Proposals are passed as
    a second set of boxes, which transforms that depend on boxes (RandomIoUCrop) do not support. The semantic map is
    passed as a mask of ids + 1, with 0 for unlabelled pixels. Pixels that the transform adds are therefore unlabelled
    if it fills masks with 0, the default of v2 (`fill={Image: 127, "others": 0}`, not `fill=127`).
    """

    def __init__(self, transform: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.transform = transform

    def __call__(self, sample: Sample, /) -> Sample:
        return from_tv_tensors(sample, self.transform(to_tv_tensors(sample)))

    def __repr__(self) -> str:
        return f"V2({self.transform!r})"


class ImageOnly:
    """Wraps a v2 transform that changes only the pixels of the image.

    A float image, as `arithmetic: float` of a resize leaves it, is passed in 0..1, which v2 expects.
    """

    takes_compressed_masks = True

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self.transform = transform

    def __call__(self, sample: Sample, /) -> Sample:
        unit = 255.0 if sample.image.is_floating_point() else 1
        image: Tensor = self.transform(tv_tensors.Image(sample.image / unit if unit != 1 else sample.image))
        image = image.as_subclass(Tensor)
        return attrs.evolve(sample, image=image * unit if unit != 1 else image)

    def __repr__(self) -> str:
        return f"ImageOnly({self.transform!r})"


def to_tv_tensors(sample: Sample) -> dict[str, Any]:
    """The parts of a sample that transforms change, as tv_tensors, without those that are None."""
    parts: dict[str, Any] = {
        "image": tv_tensors.Image(sample.image),
        "boxes": _boxes(sample.boxes, sample.size),
        "labels": sample.labels,
        "ignored": sample.ignored,
    }
    masks = bitmaps_of(sample.masks)
    if masks is not None:
        parts["masks"] = tv_tensors.Mask(masks)
    if sample.semantic is not None:
        parts["semantic"] = tv_tensors.Mask(sample.semantic.to(torch.uint8) + 1)  # uint8 wraps: 255 becomes 0
    if sample.proposals is not None:
        parts["proposals"] = _boxes(sample.proposals, sample.size)
    return parts


def _boxes(boxes: Tensor, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(boxes.reshape(-1, 4), format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=size)


def from_tv_tensors(sample: Sample, parts: dict[str, Any]) -> Sample:
    """`sample` with these parts, as plain tensors."""
    plain = {name: part.as_subclass(Tensor) for name, part in parts.items()}
    if "semantic" in plain:
        plain["semantic"] = plain["semantic"] - 1  # uint8 wraps: 0 becomes 255
    counts = {name: len(plain[name]) for name in ("boxes", "labels", "ignored", "masks") if name in plain}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"a transform changed the number of only some annotation parts: {counts}; make removed boxes empty "
            "instead, they are dropped afterwards"
        )
    return attrs.evolve(sample, **plain)


def joined(transforms: Iterable[Transform]) -> list[Transform]:
    """The transforms, with a flip that follows a resize done in the pass over the image that resizes."""
    result: list[Transform] = []
    for transform in transforms:
        last = result[-1] if result else None
        if isinstance(transform, Flip) and type(last) is Resize and last.flip is None:
            result[-1] = Resize(last.config, transform)
        else:
            result.append(transform)
    return result


class Resize:
    """Resizes an image and its annotations as `ResizeConfig` describes, then flips it if `flip` is given."""

    takes_compressed_masks = True

    def __init__(self, config: ResizeConfig, flip: Flip | None = None) -> None:
        self.config, self.flip = config, flip

    def __call__(self, sample: Sample, /) -> Sample:
        if self.config.arithmetic == "antialiased":
            sample = drawn(sample)
        scale = self.draw()
        size = self.target(sample.size, scale)
        flips = (False, False) if self.flip is None else self.flip.draw()
        if self.config.boxes != "edges":
            return resize(sample, size, self.config.arithmetic, *flips, self.pixel_scale(sample.size, size, scale))
        if size == sample.size:
            return flip(drawn(sample), *flips)
        return resize(sample, size, self.config.arithmetic, *flips)

    def pixel_scale(self, old: tuple[int, int], new: tuple[int, int], scale: tuple[int, int]) -> tuple[float, float]:
        """The (y, x) factors of boxes in pixels: with keep_ratio, one for both axes, before sides are rounded, unless
        the configuration says otherwise.
        """
        if not self.config.keep_ratio or self.config.boxes == "pixels_by_axis":
            return new[0] / old[0], new[1] / old[1]
        factor = _fitting_factor(old, scale)
        return factor, factor

    def on_canvas(self, sample: Sample, /) -> Sample:
        """The same: a canvas is resized with the image, and never drawn."""
        return self(sample)

    def draw(self) -> tuple[int, int]:
        """Draw one of the scales, or one between the two, from torch's global generator."""
        scales = self.config.scales
        if self.config.mode == "range":
            return _between(scales[0][0], scales[1][0]), _between(scales[0][1], scales[1][1])
        return scales[0 if len(scales) == 1 else _between(0, len(scales) - 1)]

    def target(self, size: tuple[int, int], scale: tuple[int, int]) -> tuple[int, int]:
        """The new (height, width) of an image of `size` (height, width) at a scale."""
        if not self.config.keep_ratio:
            return scale[1], scale[0]
        return keep_ratio_size(size, scale, self.config.rounding)

    def __repr__(self) -> str:
        return f"Resize({self.config!r})"


def keep_ratio_size(
    size: tuple[int, int], scale: tuple[int, int], rounding: Literal["nearest", "down", "short"] = "nearest"
) -> tuple[int, int]:
    """The (height, width) of an image of `size`, resized to fit the maximum (long edge, short edge).

    rounding: of both sides; or of the short one to the nearest pixel, and of the long one, from it, down.
    """
    if rounding == "short":
        short, long = min(scale), max(scale)
        if max(size) / min(size) * short > long:
            short = max(round(long * min(size) / max(size)), 1)
        height, width = (short if side == min(size) else int(short * side / min(size)) for side in size)
        return height, width
    factor = _fitting_factor(size, scale)
    extra = 0.5 if rounding == "nearest" else 0.0
    return max(int(size[0] * factor + extra), 1), max(int(size[1] * factor + extra), 1)


def _fitting_factor(size: tuple[int, int], scale: tuple[int, int]) -> float:
    """The factor by which an image of `size` fits the maximum (long edge, short edge)."""
    return min(max(scale) / max(size), min(scale) / min(size))


def _between(a: int, b: int) -> int:
    """A random integer from the smaller to the larger, both inclusive."""
    return int(torch.randint(min(a, b), max(a, b) + 1, ()))


def resize(
    sample: Sample,
    size: tuple[int, int],
    arithmetic: Arithmetic = "fixed_point",
    flip_x: bool = False,
    flip_y: bool = False,
    pixel_scale: tuple[float, float] | None = None,
) -> Sample:
    """Resize a sample to (height, width): bilinear without antialiasing; masks and semantic maps by nearest pixel.

    Boxes and proposals are multiplied by new / old size per axis, or, if given, their first and last pixels by
    `pixel_scale` (y, x). Then the sample is mirrored, as by `flip`.
    """
    height, width = sample.size
    y, x = pixel_scale or (size[0] / height, size[1] / width)
    factors = np.array([x, y, x, y], np.float32)
    last = np.array([0, 0, 1, 1] if pixel_scale else [0] * 4, np.float32)

    def moved(boxes: Tensor) -> Tensor:
        return torch.from_numpy((boxes.numpy() - last) * factors + last)

    done = sample.pixel_scale or (1.0, 1.0)
    masks = sample.masks.resized(size) if isinstance(sample.masks, CompressedMasks) else _resize(sample.masks, size)
    flips = flip_x, flip_y
    return attrs.evolve(
        sample,
        image=resize_image(sample.image, size, arithmetic, flip_x=flip_x, flip_y=flip_y, canvas=sample.canvas),
        canvas=None,
        boxes=_mirrored_boxes(moved(sample.boxes), size, *flips),
        masks=_mirrored_masks(masks, *flips),
        semantic=_mirrored_map(_resize(sample.semantic, size), *flips),
        proposals=None if sample.proposals is None else _mirrored_boxes(moved(sample.proposals), size, *flips),
        pixel_scale=(done[0] * y, done[1] * x) if pixel_scale else sample.pixel_scale,
    )


def _resize(masks: Tensor | None, size: tuple[int, int]) -> Tensor | None:
    """Resize maps (..., H, W) by nearest pixel."""
    if masks is None:
        return None
    if masks.numel() == 0:
        return masks.new_zeros((*masks.shape[:-2], *size))
    resized: Tensor = F.resize_mask(masks, list(size))
    return resized


class Flip:
    """Horizontal (x' = W - x) and vertical flips, each with its probability."""

    takes_compressed_masks = True

    def __init__(self, config: FlipConfig) -> None:
        self.config = config

    def __call__(self, sample: Sample, /) -> Sample:
        return flip(sample, *self.draw())

    def draw(self) -> tuple[bool, bool]:
        """Whether to mirror left and right, top and bottom; drawn from torch's global generator as torchvision does."""
        return happens(self.config.probability), happens(self.config.vertical_probability)

    def __repr__(self) -> str:
        return f"Flip({self.config!r})"


def flip(sample: Sample, flip_x: bool, flip_y: bool) -> Sample:
    """Mirror a sample left and right (x' = W - x), top and bottom."""
    if not (flip_x or flip_y):
        return sample
    size, flips = sample.size, (flip_x, flip_y)
    return attrs.evolve(
        sample,
        image=flip_image(sample.image, *flips),
        boxes=_mirrored_boxes(sample.boxes, size, *flips),
        proposals=None if sample.proposals is None else _mirrored_boxes(sample.proposals, size, *flips),
        masks=_mirrored_masks(sample.masks, *flips),
        semantic=_mirrored_map(sample.semantic, *flips),
    )


def _mirrored_boxes(boxes: Tensor, size: tuple[int, int], flip_x: bool, flip_y: bool) -> Tensor:
    """Boxes (n, 4) of an image of (height, width)."""
    if not (flip_x or flip_y):
        return boxes
    height, width = size
    corners = boxes.numpy().copy()
    if flip_x:
        corners[:, 0::2] = width - corners[:, 2::-2]
    if flip_y:
        corners[:, 1::2] = height - corners[:, 3::-2]
    return torch.from_numpy(corners)


def _mirrored_masks(
    masks: Tensor | CompressedMasks | None, flip_x: bool, flip_y: bool
) -> Tensor | CompressedMasks | None:
    if not isinstance(masks, CompressedMasks):
        return _mirrored_map(masks, flip_x, flip_y)
    return masks.mirrored(flip_x, flip_y) if flip_x or flip_y else masks


def _mirrored_map(maps: Tensor | None, flip_x: bool, flip_y: bool) -> Tensor | None:
    return None if maps is None else mirror(maps, flip_x, flip_y)


def color_jitter(config: ColorJitterConfig) -> Transform:
    """torchvision's ColorJitter, applied with the configured probability."""
    jitter = v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
    return ImageOnly(v2.RandomApply([jitter], p=config.probability))
