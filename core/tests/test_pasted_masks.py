"""Masks of detections that are pasted on first use: the same as bitmaps in whatever is done with them."""

from __future__ import annotations

import json
import pickle

import attrs
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import det_ops
from det_core.compressed_masks import RegionMasks, encode_masks
from det_core.engine.prediction_run import plain_detections
from det_core.engine.test_time_augmentation import Augmentation, merge, unflip
from det_core.structures import Classes, Detections

SIZE = (30, 40)
RULES: tuple[det_ops.PasteRule, ...] = ("sampled", "resized")


def regions(count: int, rule: det_ops.PasteRule = "sampled", seed: int = 0) -> RegionMasks:
    """Random masks in random boxes, some partly outside the image."""
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=random) * 30 - 5
    boxes = torch.cat([corner, corner + 2 + torch.rand(count, 2, generator=random) * 15], 1)
    probabilities = torch.rand(count, 7, 7, generator=random)
    return RegionMasks(probabilities=probabilities, boxes=boxes, size=SIZE, rule=rule, threshold=0.4)


def detections(masks: Tensor | RegionMasks | None, count: int = 5) -> Detections:
    boxes = torch.arange(4.0 * count).reshape(count, 4) + torch.tensor([0.0, 0.0, 30.0, 30.0])
    return Detections(boxes=boxes, scores=torch.arange(count, 0, -1) / 10, labels=torch.arange(count) % 2, masks=masks)


class Calls(TorchDispatchMode):
    """Counts the operators of torch that are called in this context."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rule", RULES)
def test_masks_are_pasted_when_they_are_used_and_once(rule):
    given = regions(5, rule)
    found = detections(given)
    with Calls() as calls:
        assert found.region_masks is given
        assert not calls.names
        masks = found.masks
        assert calls.names.count("det.paste_masks.default") == 1
        assert found.masks is masks
        assert calls.names.count("det.paste_masks.default") == 1
    expected = det_ops.paste_masks(given.probabilities, given.boxes, SIZE, 0.4, rule)
    assert masks is not None
    assert (masks.dtype, masks.shape) == (torch.bool, (5, *SIZE))
    assert torch.equal(masks, expected)
    assert expected.any()


def test_bitmaps_and_none_stay_what_they_are():
    bitmaps = torch.ones(5, *SIZE, dtype=torch.bool)
    assert detections(bitmaps).masks is bitmaps
    assert detections(bitmaps).region_masks is None
    assert detections(None).masks is None
    assert detections(None).region_masks is None


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("index", [slice(1, 3), slice(0, 0), torch.tensor([3, 0]), torch.arange(5) > 2])
def test_choosing_pastes_nothing_and_chooses_masks(index, flipped):
    given = regions(5).mirrored() if flipped else regions(5)
    found = detections(given)
    chosen = found[index]
    assert chosen.region_masks is not None
    assert len(chosen.region_masks) == len(chosen)
    assert found.masks is not None
    assert chosen.masks is not None
    assert torch.equal(chosen.masks, found.masks[index])


def test_moving_sending_and_evolving():
    found = detections(regions(5).mirrored())
    expected = found.masks
    assert expected is not None
    for copy in (found.to("cpu"), pickle.loads(pickle.dumps(found)), attrs.evolve(found, boxes=found.boxes + 1)):
        assert copy.region_masks is not None
        assert copy.masks is not None
        assert torch.equal(copy.masks, expected)
    moved = found.to("meta").region_masks
    assert moved is not None
    assert moved.flipped is not None
    assert {t.device.type for t in (moved.probabilities, moved.boxes, moved.flipped)} == {"meta"}


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_codes_are_those_of_the_bitmaps(rule, flipped):
    given = regions(8, rule).mirrored() if flipped else regions(8, rule)
    found = detections(given, 8)
    assert found.masks is not None
    assert found.mask_codes() == encode_masks(found.masks) == attrs.evolve(found, masks=found.masks).mask_codes()
    assert detections(None).mask_codes() is None
    assert detections(regions(0), 0).mask_codes() == []


def test_the_records_of_predictions_have_the_codes():
    found = detections(regions(5))
    with Calls() as calls:
        records = plain_detections(found, Classes.numbered(2))
    assert "det.paste_masks.default" not in calls.names
    assert found.masks is not None
    assert [record["mask"] for record in records] == encode_masks(found.masks)
    assert json.loads(json.dumps(records)) == records
    assert "mask" not in plain_detections(detections(None), Classes.numbered(2))[0]


def test_many_masks_take_no_more_calls_than_few():
    counted = []
    for count in (1, 100):
        found = detections(regions(count), count).to("cpu")
        with Calls() as calls:
            found.mask_codes()
            assert found.masks is not None
        counted.append(calls.names)
    assert counted[0] == counted[1]


@pytest.mark.parametrize("rule", RULES)
def test_mirroring_back_is_that_of_bitmaps(rule):
    found = detections(regions(5, rule))
    assert found.masks is not None
    back = unflip(found, SIZE[1])
    assert back.region_masks is not None
    assert back.masks is not None
    assert torch.equal(back.masks, found.masks.flip(2))
    again = unflip(back, SIZE[1]).masks
    assert again is not None
    assert torch.equal(again, found.masks)


def test_views_are_merged_as_bitmaps_are():
    first, second = detections(regions(5)), unflip(detections(regions(5, seed=1)), SIZE[1])
    bitmaps = [attrs.evolve(view, masks=view.masks) for view in (first, second)]
    settings = Augmentation(nms_threshold=1.0, max_detections=7)
    merged, expected = merge([first, second], settings), merge(bitmaps, settings)
    assert merged.region_masks is not None
    assert expected.masks is not None
    for found in (merged, merge([first, bitmaps[1]], settings)):
        assert found.masks is not None
        assert torch.equal(found.masks, expected.masks)
    assert merge([first, detections(None)], settings).masks is None


def test_masks_of_different_rules_are_not_joined():
    with pytest.raises(AssertionError, match="masks of different images or rules"):
        RegionMasks.joined([regions(2, "sampled"), regions(2, "resized")])
