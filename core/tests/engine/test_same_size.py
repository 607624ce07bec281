"""Batches of images that are padded to one size."""

from __future__ import annotations

import pytest
import torch

from det_core.data.loader import LoadedImage
from det_core.engine.same_size import WAITING, padded_size, same_size_batches, same_size_groups
from det_core.structures import ImageInfo, Targets


def image(number: int, size: tuple[int, int]) -> LoadedImage:
    return LoadedImage(
        image=torch.zeros(3, *size, dtype=torch.uint8),
        targets=Targets(boxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64)),
        info=ImageInfo(size=size, original_size=size, image_id=number),
    )


def batches(sizes: list[tuple[int, int]], batch_size: int) -> list[list[int]]:
    images = (image(number, size) for number, size in enumerate(sizes))
    return [[i.info.image_id for i in batch] for batch in same_size_batches(images, batch_size, 32)]


A, B, C = (30, 60), (32, 64), (33, 64)  # A and B are padded to one size


def test_images_of_one_padded_size_go_together() -> None:
    assert padded_size(image(0, A), 32) == padded_size(image(0, B), 32) == (32, 64)
    assert batches([A, C, B, C, A], 2) == [[0, 2], [1, 3], [4]]
    assert batches([A, C, B], 1) == [[0], [1], [2]]
    assert batches([], 2) == []
    assert same_size_groups([image(0, A), image(1, C), image(2, B)], 32) == [[0, 2], [1]]


@pytest.mark.parametrize("batch_size", [2, 3])
def test_no_more_than_a_few_batches_wait(batch_size: int) -> None:
    sizes = [(32 * k, 32) for k in range(1, 100)]
    seen = batches(sizes, batch_size)
    assert sorted(n for batch in seen for n in batch) == list(range(99))
    images = (image(number, size) for number, size in enumerate(sizes))
    taken = [0]

    def counted():
        for one in images:
            taken[0] += 1
            yield one

    next(same_size_batches(counted(), batch_size, 32))
    assert taken[0] == WAITING * batch_size + 1
