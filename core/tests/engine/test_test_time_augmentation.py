"""Test-time augmentation: its views, mirroring back, and merging."""

from __future__ import annotations

import pytest
import torch

from det_core.data.data_config import ColorJitterConfig, FlipConfig, ResizeConfig
from det_core.engine.test_time_augmentation import Augmentation, merge, unflip
from det_core.errors import DetError
from det_core.structures import Detections

RESIZE = ResizeConfig(scales=((100, 80),))


def found(*rows: tuple[float, ...], masks: torch.Tensor | None = None) -> Detections:
    """Rows of x1, y1, x2, y2, score, label."""
    table = torch.tensor(rows).reshape(-1, 6)
    return Detections(boxes=table[:, :4], scores=table[:, 4], labels=table[:, 5].long(), masks=masks)


def test_without_settings_there_is_one_view():
    assert Augmentation().views((RESIZE,)) == [((RESIZE,), False)]


def test_every_scale_plain_and_mirrored():
    views = Augmentation(scales=((60, 40), (90, 70)), flip=True).views((ColorJitterConfig(), RESIZE))
    small, large = ResizeConfig(scales=((60, 40),)), ResizeConfig(scales=((90, 70),))
    jitter, mirror = ColorJitterConfig(), FlipConfig(probability=1.0)
    assert views == [
        ((jitter, small), False),
        ((jitter, large), False),
        ((jitter, small, mirror), True),
        ((jitter, large, mirror), True),
    ]


def test_scales_without_a_resize_are_refused():
    with pytest.raises(DetError, match="scales need a resize among the test transforms, found flip; add one, or"):
        Augmentation(scales=((60, 40),)).views((FlipConfig(),))


def test_mirroring_twice_is_nothing():
    masks = torch.zeros(1, 4, 10, dtype=torch.bool)
    masks[0, :, :3] = True
    there = unflip(found((1, 0, 4, 2, 0.5, 3), masks=masks), 10)
    assert there.boxes.tolist() == [[6, 0, 9, 2]]
    assert there.masks is not None
    assert there.masks[0, 0].tolist() == [False] * 7 + [True] * 3
    assert unflip(there, 10).boxes.tolist() == [[1, 0, 4, 2]]


def test_the_best_of_overlapping_views_stays():
    first = found((0, 0, 10, 10, 0.8, 1), (50, 50, 60, 60, 0.3, 1))
    second = found((0, 0, 10, 9, 0.9, 1), (0, 0, 10, 10, 0.7, 2))
    merged = merge([first, second], Augmentation())
    assert merged.boxes.tolist() == [[0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]]
    assert merged.labels.tolist() == [1, 2, 1]
    assert len(merge([first, second], Augmentation(max_detections=2))) == 2
    assert len(merge([first, second], Augmentation(nms_threshold=0.95))) == 4


def test_masks_come_along_only_if_all_views_have_them():
    masks = torch.ones(1, 2, 2, dtype=torch.bool)
    with_masks, without = found((0, 0, 2, 2, 0.9, 0), masks=masks), found((0, 0, 2, 2, 0.8, 0))
    assert merge([with_masks, with_masks], Augmentation()).masks is not None
    assert merge([with_masks, without], Augmentation()).masks is None
    assert len(merge([without[:0], without[:0]], Augmentation())) == 0
