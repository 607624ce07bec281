"""Tiny batches, targets, feature maps and proposals for tests, from fixed seeds, on the CPU.

    batch = make_batch()
    targets = random_targets(batch, counts=(3, 0))
    losses = head.losses(head(make_features(PYRAMID, batch)), targets, batch)

Letters: N images, (H, W) padded size of the batch, (h, w) valid size of an image, n objects of an image, C channels.
Sizes are (height, width). Boxes are float32 xyxy in pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from det_core.specs import FeatureSpec, RegionSpec
from det_core.structures import UNLABELLED, Batch, ImageInfo, Key, Targets

IMAGE_SIZE = (96, 128)
PYRAMID = FeatureSpec(channels=(16,) * 5, strides=(4, 8, 16, 32, 64))
STAGES = FeatureSpec(channels=(8, 16, 24, 32), strides=(4, 8, 16, 32))
REGIONS = RegionSpec(channels=16, size=(7, 7))


def make_batch(
    count: int = 2,
    size: tuple[int, int] = IMAGE_SIZE,
    *,
    last_size: tuple[int, int] | None = None,
    scale: tuple[float, float] = (0.5, 0.5),
    seed: int = 0,
) -> Batch:
    """`count` random images (N, 3, *size); the last is padded, with a valid size of `last_size`.

    By default the last image is 16 pixels lower and 32 narrower than the others. `scale` is the (y, x) factor from
    original to network pixels. The key's index and `image_id` are the index in the batch.
    """
    images = torch.randn(count, 3, *size, generator=_generator(seed))
    sizes = [size] * (count - 1) + [last_size or (size[0] - 16, size[1] - 32)]
    return Batch(images=images, infos=tuple(_info(s, scale, index) for index, s in enumerate(sizes)))


def blank_batch(height: int, width: int, count: int = 1, *, scale: tuple[float, float] = (1.0, 1.0)) -> Batch:
    """`count` images of zeros (N, 3, height, width) without padding, for expected results computed by hand.

    `scale` is the (y, x) factor from original to network pixels.
    """
    infos = tuple(_info((height, width), scale, index) for index in range(count))
    return Batch(images=torch.zeros(count, 3, height, width), infos=infos)


def make_targets(batch: Batch, num_classes: int, *, empty: bool = False) -> list[Targets]:
    """Two overlapping objects in every image of the batch, or none (`empty`).

    They have boxes (n, 4), labels (n,), masks (n, h, w) that fill the boxes, and a semantic map (h, w) with class 0 in
    the upper half and `UNLABELLED` below.
    """
    targets = []
    for row, info in enumerate(batch.infos):
        h, w = info.size
        boxes = torch.tensor([[4.0, 6.0, w / 2, h / 2], [w / 3, h / 4, w - 8.0, h - 8.0]])
        labels = torch.tensor([row % num_classes, num_classes - 1])
        semantic = torch.full((h, w), UNLABELLED, dtype=torch.int64)
        semantic[: 0 if empty else h // 2] = 0
        keep = slice(0, 0 if empty else 2)
        masks = filled_masks(boxes[keep], info.size)
        targets.append(Targets(boxes=boxes[keep], labels=labels[keep], masks=masks, semantic=semantic))
    return targets


def random_targets(
    batch: Batch, counts: Sequence[int], num_classes: int = 3, *, semantic_background: int | None = None
) -> list[Targets]:
    """Objects at random positions: `counts[i]` in image i, with sides of 12 to 36 pixels.

    They have boxes (n, 4), labels (n,) 0, 1, 2, ... modulo `num_classes`, and masks (n, h, w) that fill the boxes. If
    `semantic_background` is given, they also have a semantic map (h, w): objects have their label, other pixels of the
    lowest 20 rows are `UNLABELLED`, and the rest has this class.
    """
    generator, targets = _generator(2), []
    for info, count in zip(batch.infos, counts, strict=True):
        height, width = info.size
        sides = 12 + torch.rand(count, 2, generator=generator) * 24
        corners = torch.rand(count, 2, generator=generator) * (torch.tensor([width, height]) - sides)
        boxes, labels = torch.cat([corners, corners + sides], 1), torch.arange(count) % num_classes
        masks, semantic = filled_masks(boxes, info.size), None
        if semantic_background is not None:
            semantic = torch.full((height, width), semantic_background)
            semantic[-20:] = UNLABELLED
            for mask, label in zip(masks, labels, strict=True):
                semantic[mask.bool()] = label
        targets.append(Targets(boxes=boxes, labels=labels, masks=masks, semantic=semantic))
    return targets


def objects(*boxes: Sequence[float], label: int = 0) -> Targets:
    """Targets with boxes (n, 4) of one class, without masks. `objects()` has no objects."""
    return Targets(boxes=torch.tensor(boxes).float().view(-1, 4), labels=torch.full((len(boxes),), label))


def filled_masks(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (n, *size) uint8 that are 1 inside the boxes (n, 4), rounded to whole pixels, and 0 elsewhere."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.round().int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return masks


def make_features(spec: FeatureSpec, batch: Batch, *, seed: int = 1) -> list[Tensor]:
    """Random feature maps (N, C, ceil(H / stride), ceil(W / stride)) of the levels of `spec`."""
    generator = _generator(seed)
    height, width = batch.padded_size
    return [
        torch.randn(len(batch), channels, -(-height // stride), -(-width // stride), generator=generator)
        for channels, stride in zip(spec.channels, spec.strides, strict=True)
    ]


def make_proposals(batch: Batch, targets: Sequence[Targets]) -> list[Tensor]:
    """Proposals (n + 12, 4) per image: the objects' boxes, shifted by one pixel, then 12 random boxes."""
    proposals = []
    for info, target in zip(batch.infos, targets, strict=True):
        h, w = info.size
        corner = torch.rand(12, 2, generator=_generator(2)) * torch.tensor([w / 2, h / 2])
        size = 8 + torch.rand(12, 2, generator=_generator(3)) * torch.tensor([w / 2 - 8, h / 2 - 8])
        proposals.append(torch.cat([target.boxes + 1.0, torch.cat([corner, corner + size], 1)]))
    return proposals


def _info(size: tuple[int, int], scale: tuple[float, float], index: int) -> ImageInfo:
    original = (round(size[0] / scale[0]), round(size[1] / scale[1]))
    return ImageInfo(size=size, original_size=original, scale=scale, key=Key(index=index), image_id=index)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
