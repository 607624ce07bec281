"""The tiny inputs: their shapes, their boxes, and that they are the same each time."""

from __future__ import annotations

import pytest
import torch

from det_core.structures import UNLABELLED, Key
from det_core.testing.tiny_inputs import (
    IMAGE_SIZE,
    PYRAMID,
    STAGES,
    blank_batch,
    filled_masks,
    make_batch,
    make_features,
    make_proposals,
    make_targets,
    objects,
    random_targets,
)


def test_a_batch_has_a_smaller_last_image():
    batch = make_batch(3)
    assert batch.images.shape == (3, 3, *IMAGE_SIZE)
    assert batch.padded_size == IMAGE_SIZE
    assert [info.size for info in batch.infos] == [(96, 128), (96, 128), (80, 96)]
    assert [info.original_size for info in batch.infos] == [(192, 256), (192, 256), (160, 192)]
    assert [(info.key, info.image_id) for info in batch.infos] == [(Key(index=i), i) for i in range(3)]


def test_sizes_and_scales_are_height_and_width():
    batch = make_batch(size=(64, 96), last_size=(56, 80), scale=(0.5, 0.25))
    assert batch.images.shape == (2, 3, 64, 96)
    assert [info.size for info in batch.infos] == [(64, 96), (56, 80)]
    assert [info.original_size for info in batch.infos] == [(128, 384), (112, 320)]


def test_seeds_decide_on_the_values():
    assert torch.equal(make_batch().images, make_batch().images)
    assert not torch.equal(make_batch().images, make_batch(seed=1).images)
    one, same, other = (make_features(STAGES, make_batch(), seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_blank_batch():
    batch = blank_batch(16, 48, count=2, scale=(0.5, 2.0))
    assert torch.equal(batch.images, torch.zeros(2, 3, 16, 48))
    assert [(i.size, i.original_size, i.scale) for i in batch.infos] == [((16, 48), (32, 24), (0.5, 2.0))] * 2


def test_two_objects_in_every_image_or_none():
    batch = make_batch()
    targets = make_targets(batch, 3)
    assert [len(t) for t in targets] == [2, 2]
    for target, info in zip(targets, batch.infos, strict=True):
        assert target.masks.shape == (2, *info.size)
        assert bool((target.masks.flatten(1).sum(1) > 0).all())
        assert bool((target.boxes[:, 2:] > target.boxes[:, :2]).all())
        assert bool((target.boxes[:, 2:] <= torch.tensor(info.size).flip(0)).all())
        assert target.semantic.shape == info.size
        assert set(target.semantic.unique().tolist()) == {0, UNLABELLED}
    for target, info in zip(make_targets(batch, 3, empty=True), batch.infos, strict=True):
        assert len(target) == 0
        assert target.masks.shape == (0, *info.size)
        assert set(target.semantic.unique().tolist()) == {UNLABELLED}


def test_random_targets_are_inside_their_images():
    batch = make_batch()
    for target, info, count in zip(random_targets(batch, (5, 0)), batch.infos, (5, 0), strict=True):
        height, width = info.size
        assert target.boxes.shape == (count, 4)
        assert target.labels.tolist() == [0, 1, 2, 0, 1][:count]
        assert target.masks.shape == (count, height, width)
        assert target.masks.dtype == torch.uint8
        assert target.semantic is None
        sides = target.boxes[:, 2:] - target.boxes[:, :2]
        assert bool(((sides >= 12 - 1e-3) & (sides <= 36 + 1e-3)).all())
        assert bool(((target.boxes >= 0) & (target.boxes <= torch.tensor([width, height] * 2))).all())


def test_random_targets_need_a_count_for_each_image():
    with pytest.raises(ValueError, match="shorter"):
        random_targets(make_batch(), (3,))


def test_the_semantic_map_of_random_targets():
    batch = make_batch(1)
    (target,) = random_targets(batch, (1,), semantic_background=5)
    inside = target.masks[0].bool()
    assert set(target.semantic[inside].tolist()) == {0}
    assert set(target.semantic[:-20][~inside[:-20]].tolist()) == {5}
    assert set(target.semantic[-20:][~inside[-20:]].tolist()) == {UNLABELLED}


def test_objects_of_one_class():
    target = objects((1, 2, 3, 4), (5.5, 6, 7, 8), label=2)
    assert target.boxes.tolist() == [[1, 2, 3, 4], [5.5, 6, 7, 8]]
    assert target.labels.tolist() == [2, 2]
    assert target.masks is None
    none = objects()
    assert (none.boxes.shape, none.labels.shape, none.labels.dtype) == ((0, 4), (0,), torch.int64)


def test_masks_fill_boxes():
    (mask,) = filled_masks(torch.tensor([[1.2, 0.0, 2.9, 2.0]]), (3, 4))
    assert mask.tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert filled_masks(torch.zeros(0, 4), (3, 4)).shape == (0, 3, 4)


def test_feature_sizes_are_rounded_up():
    maps = make_features(STAGES, make_batch())
    assert [tuple(m.shape) for m in maps] == [(2, 8, 24, 32), (2, 16, 12, 16), (2, 24, 6, 8), (2, 32, 3, 4)]
    assert make_features(PYRAMID, make_batch())[-1].shape == (2, 16, 2, 2)


def test_proposals_begin_near_the_objects():
    batch = make_batch()
    targets = random_targets(batch, (3, 0))
    near, far = make_proposals(batch, targets)
    assert (near.shape, far.shape) == ((15, 4), (12, 4))
    assert torch.equal(near[:3], targets[0].boxes + 1)
    assert bool((near[:, 2:] > near[:, :2]).all())
