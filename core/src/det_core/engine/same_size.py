"""Batches of images that are padded to one size, so that each gives the result that it gives alone.

Letters: h w size of an image after its transforms.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from det_core.data.loader import LoadedImage

T = TypeVar("T")

WAITING = 4  # batches' worth of images that may wait for others of their size


def padded_size(image: LoadedImage, divisor: int) -> tuple[int, int]:
    """(h, w) rounded up to multiples of the divisor."""
    height, width = image.info.size
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def same_size_batches(images: Iterable[LoadedImage], batch_size: int, divisor: int) -> Iterator[list[LoadedImage]]:
    """Batches of at most `batch_size` images of one padded size; see `batches_of`."""
    return batches_of(images, batch_size, lambda image: padded_size(image, divisor))


def batches_of(items: Iterable[T], batch_size: int, size_of: Callable[[T], Hashable]) -> Iterator[list[T]]:
    """Batches of at most `batch_size` items of one size, in the order in which they become full.

    If items of too many sizes wait, the one that has waited longest goes with those of its size.
    """
    waiting: dict[Hashable, list[T]] = {}
    for item in items:
        size = size_of(item)
        group = waiting.setdefault(size, [])
        group.append(item)
        if len(group) == batch_size:
            yield waiting.pop(size)
        elif sum(map(len, waiting.values())) > WAITING * batch_size:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def same_size_groups(images: Sequence[LoadedImage], divisor: int) -> list[list[int]]:
    """The positions of the images, by padded size."""
    groups: dict[tuple[int, int], list[int]] = {}
    for at, image in enumerate(images):
        groups.setdefault(padded_size(image, divisor), []).append(at)
    return list(groups.values())
