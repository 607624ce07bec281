"""Images mixed of several: mosaic and mix-up. Letters: H W size of the result, h w size of an image."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
from torch import Tensor
from torch.distributions import Beta

from det_core.contracts import Sample
from det_core.data.augmentation_config import MixUpConfig, MosaicConfig
from det_core.data.configured import Configured
from det_core.data.objects_in_window import Objects, objects_in, with_objects
from det_core.data.placement import Crop
from det_core.data.random_numbers import happens
from det_core.errors import DataError
from det_core.structures import UNLABELLED


class Mosaic(Configured[MosaicConfig]):
    """The image and three others around a point: it is in the top-left quarter."""

    takes_compressed_masks = True

    def __call__(self, sample: Sample, /) -> Sample:
        raise _needs_others("mosaic")

    def mix(self, sample: Sample, another: Callable[[], Sample], /) -> Sample:
        """The mosaic with three samples of `another()`."""
        if not happens(self.config.probability):
            return sample
        least, most = self.config.centre
        height, width = self.config.size
        y, x = (
            min(max(round(side * float(least + torch.rand(1) * (most - least))), 1), side - 1)
            for side in (height, width)
        )
        return mosaic([sample, another(), another(), another()], self.config.size, (x, y), self.config)


def mosaic(samples: list[Sample], size: tuple[int, int], point: tuple[int, int], config: MosaicConfig) -> Sample:
    """Four samples in an image of (height, width): top left, top right, bottom left, bottom right of a point (x, y)."""
    _check("mosaic", samples)
    (height, width), (x, y), first = size, point, samples[0]
    image = _filled(first.image, size, config.fill)
    semantic = None if first.semantic is None else torch.full(size, UNLABELLED, dtype=first.semantic.dtype)
    parts: list[tuple[Sample, Objects]] = []
    for number, sample in enumerate(samples):
        right, below = number % 2 == 1, number >= 2
        h, w = sample.size
        rows, columns = min(h, height - y if below else y), min(w, width - x if right else x)
        # the window of the image that is seen, and where its top-left corner lies in the result
        left, top = 0 if right else w - columns, 0 if below else h - rows
        to_x, to_y = x if right else x - columns, y if below else y - rows
        window: Crop = (left, top, left + columns, top + rows)
        place = (slice(to_y, to_y + rows), slice(to_x, to_x + columns))
        seen = (slice(top, top + rows), slice(left, left + columns))
        image[:, *place] = sample.image[:, *seen].to(image.dtype)
        if semantic is not None and sample.semantic is not None:
            semantic[place] = sample.semantic[seen]
        parts.append((sample, objects_in(sample, window, (to_x - left, to_y - top), config.min_visible)))
    return with_objects(attrs.evolve(first, image=image, semantic=semantic), parts, size)


class MixUp(Configured[MixUpConfig]):
    """A weighted mean of the image and another."""

    takes_compressed_masks = True

    def __call__(self, sample: Sample, /) -> Sample:
        raise _needs_others("mix_up")

    def mix(self, sample: Sample, another: Callable[[], Sample], /) -> Sample:
        """The mean with `another()`."""
        if not happens(self.config.probability):
            return sample
        weight = float(Beta(self.config.alpha, self.config.alpha).sample())
        return mix_up(sample, another(), weight, self.config.fill)


def mix_up(sample: Sample, other: Sample, weight: float, fill: tuple[float, float, float]) -> Sample:
    """`weight` times an image plus 1 - `weight` times another, in a frame that holds both, with the objects of both."""
    _check("mix_up", [sample, other])
    size = max(sample.size[0], other.size[0]), max(sample.size[1], other.size[1])
    pictures = []
    for part in (sample, other):
        picture = _filled(sample.image, size, fill)
        picture[:, : part.size[0], : part.size[1]] = part.image.to(picture.dtype)
        pictures.append(picture)
    mixed = torch.lerp(pictures[1].float(), pictures[0].float(), weight)
    if not sample.image.is_floating_point():
        mixed = (mixed + 0.5).floor().to(sample.image.dtype)
    semantic = None
    if sample.semantic is not None and other.semantic is not None:
        below, above = (other, sample) if weight >= 0.5 else (sample, other)
        semantic = torch.full(size, UNLABELLED, dtype=sample.semantic.dtype)
        for part in (below, above):
            assert part.semantic is not None
            semantic[: part.size[0], : part.size[1]] = part.semantic
    parts = [(part, objects_in(part, (0, 0, part.size[1], part.size[0]), (0, 0), 0.0)) for part in (sample, other)]
    return with_objects(attrs.evolve(sample, image=mixed, semantic=semantic), parts, size)


def _filled(like: Tensor, size: tuple[int, int], fill: tuple[float, float, float]) -> Tensor:
    """(C, H, W) of one colour, of the image's dtype."""
    colour = torch.tensor(fill).to(like.dtype)
    return colour[:, None, None].expand(-1, *size).clone()


def _needs_others(name: str) -> DataError:
    return DataError(
        f"{name} mixes an image with others, but only training on a data set gives it some; use it in "
        "`data.train_transforms` only"
    )


def _check(name: str, samples: list[Sample]) -> None:
    """Raise DataError for samples that cannot be mixed."""
    if any(sample.proposals is not None for sample in samples):
        raise DataError(f"{name} does not support proposals; remove it from `data.train_transforms`")
