"""Masks that stay compressed: equal to bitmaps in whatever is done with them."""

from __future__ import annotations

import pickle

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torchvision.transforms.v2 import functional as F

from det_core.compressed_masks import CompressedMasks, bitmaps_of
from det_core.contracts import Sample
from det_core.data.data_config import ColorJitterConfig, FlipConfig, ResizeConfig
from det_core.data.transforms import V2, apply_transforms
from det_core.model.region_masks import mask_targets
from det_core.structures import Key, Targets

side = st.integers(1, 40)


def blobs(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(count, height, width) uint8: rectangles with holes."""
    rng = np.random.default_rng(seed)
    masks = torch.zeros(count, height, width, dtype=torch.uint8)
    for mask in masks:
        y, x = sorted(rng.integers(0, height + 1, 2)), sorted(rng.integers(0, width + 1, 2))
        mask[y[0] : y[1], x[0] : x[1]] = 1
        mask[rng.integers(0, height), rng.integers(0, width)] ^= 1
    return masks


def sample(masks: torch.Tensor | CompressedMasks) -> Sample:
    count, height, width = masks.shape
    boxes = torch.tensor([[0.0, 0.0, float(width), float(height)]]).repeat(count, 1)
    return Sample(
        image=torch.arange(3 * height * width).reshape(3, height, width).to(torch.uint8),
        boxes=boxes,
        labels=torch.zeros(count, dtype=torch.int64),
        ignored=torch.zeros(count, dtype=torch.bool),
        masks=masks,
    )


@given(st.integers(0, 4), side, side, side, side, st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_resizing_and_mirroring_are_those_of_bitmaps(n, height, width, h, w, flip_x, flip_y):
    masks = blobs(n, height, width)
    axes = [axis for axis, flip in ((2, flip_x), (1, flip_y)) if flip]
    expected = F.resize_mask(masks, [h, w]) if n else masks.new_zeros(0, h, w)
    found = CompressedMasks.of_bitmaps(masks).resized((h, w)).mirrored(flip_x, flip_y)
    assert found.shape == (n, h, w)
    assert torch.equal(found.bitmaps(), expected.flip(axes) if axes else expected)
    again = found.resized((height, width))
    assert torch.equal(again.bitmaps(), F.resize_mask(found.bitmaps(), [height, width]) if n else masks)


def test_choosing_moving_and_sending():
    masks = blobs(5, 20, 30)
    ours = CompressedMasks.of_bitmaps(masks)
    keep = torch.tensor([True, False, True, True, False])
    assert torch.equal(ours[keep].bitmaps(), masks[keep])
    order = torch.tensor([4, 0, 4])
    assert torch.equal(ours[order].bitmaps(), masks[order])
    assert len(ours[~keep & keep]) == 0
    assert torch.equal(ours.to("cpu").bitmaps(), masks)
    assert torch.equal(pickle.loads(pickle.dumps(ours)).bitmaps(), masks)
    assert bitmaps_of(None) is None
    assert bitmaps_of(masks) is masks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_targets_of_a_mask_head_are_those_of_bitmaps_bit_by_bit(dtype):
    rng = torch.Generator().manual_seed(0)
    bitmaps = blobs(6, 90, 120)
    compressed = CompressedMasks.of_bitmaps(bitmaps).resized((130, 170)).mirrored(True, False)
    low = torch.rand(40, 2, generator=rng, dtype=torch.float64) * torch.tensor([170, 130]) - 10
    boxes = torch.cat([low, low + torch.rand(40, 2, generator=rng, dtype=torch.float64) * 90], 1).to(dtype)
    objects = torch.randint(0, 6, (40,), generator=rng)
    found = mask_targets(compressed, objects, boxes, (28, 14))
    assert found.dtype == dtype
    assert found.any()
    assert not found.all()
    assert torch.equal(found, mask_targets(compressed.bitmaps(), objects, boxes, (28, 14)))
    assert mask_targets(compressed, objects[:0], boxes[:0], (28, 28)).shape == (0, 28, 28)


def test_transforms_of_this_project_keep_masks_compressed(monkeypatch):
    masks = blobs(4, 40, 60)
    transforms = [c.build() for c in (ColorJitterConfig(), ResizeConfig(scales=((90, 50),)), FlipConfig(probability=1))]
    expected = apply_transforms(sample(masks), transforms, Key()).masks
    monkeypatch.setattr(CompressedMasks, "of_bitmaps", None)
    compressed = sample(CompressedMasks.of_codes([], (40, 60)))
    assert isinstance(apply_transforms(compressed, transforms, Key()).masks, CompressedMasks)
    monkeypatch.undo()
    found = apply_transforms(sample(CompressedMasks.of_bitmaps(masks)), transforms, Key())
    assert torch.equal(bitmaps_of(found.masks), expected)
    assert torch.equal(found.image, apply_transforms(sample(masks), transforms, Key()).image)


def test_a_transform_of_others_gets_bitmaps():
    """Its result is compressed again; so is that of torchvision's transforms."""

    def crop(given: Sample) -> Sample:
        assert isinstance(given.masks, torch.Tensor)
        return attrs.evolve(given, image=given.image[..., :30], masks=given.masks[..., :30])

    masks = blobs(3, 40, 60)
    for transform in (crop, V2(lambda parts: parts)):
        found = apply_transforms(sample(CompressedMasks.of_bitmaps(masks)), [transform], Key()).masks
        assert isinstance(found, CompressedMasks)
        assert torch.equal(found.bitmaps(), masks[..., : found.shape[2]])


def test_targets_drop_ignored_masks():
    masks = CompressedMasks.of_bitmaps(blobs(3, 20, 30))
    ignored = torch.tensor([False, True, False])
    targets = Targets(boxes=torch.zeros(3, 4), labels=torch.zeros(3).long(), masks=masks, ignored=ignored)
    assert torch.equal(bitmaps_of(targets.objects().masks), masks.bitmaps()[~ignored])


def test_a_hundred_objects_are_kilobytes():
    masks = CompressedMasks.of_bitmaps(blobs(100, 480, 640)).resized((800, 1067))
    assert sum(x.numel() * x.element_size() for x in (masks.codes, masks.offsets, masks.rows, masks.columns)) < 200_000
