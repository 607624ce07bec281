"""Detections as arrays, as COCO's records, as supervision's, and back."""

from __future__ import annotations

import json
import sys
import types

import attrs
import numpy as np
import pytest
import torch

from det_core.compressed_masks import CompressedMasks, RegionMasks, mask_codes, placed_bitmaps, united
from det_core.errors import DetError
from det_core.structures import Classes, Detections

CLASSES = Classes(names=("cat", "dog", "cow"), ids=(7, 18, 21))
BITMAPS = torch.zeros(3, 20, 30, dtype=torch.bool)
BITMAPS[0, 2:9, 3:12] = BITMAPS[1, 0:20, 0:5] = BITMAPS[2, 10:11, 29:30] = True


def some(masks: torch.Tensor | CompressedMasks | None = None) -> Detections:
    return Detections(
        boxes=torch.tensor([[3.25, 2, 12, 9], [0, 0, 5.1, 20], [29, 10, 30, 11]]),
        scores=torch.tensor([0.9, 0.5, 0.1]),
        labels=torch.tensor([2, 0, 1]),
        masks=masks,
    )


def equal(one: Detections, other: Detections) -> bool:
    same = all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("boxes", "scores", "labels"))
    if one.masks is None or other.masks is None:
        return same and one.masks is other.masks
    return same and torch.equal(one.masks, other.masks)


@pytest.mark.parametrize(
    "masks", [None, BITMAPS, CompressedMasks.of_bitmaps(BITMAPS)], ids=["none", "bitmaps", "codes"]
)
def test_there_and_back(masks):
    found = some(masks)
    arrays = found.to_numpy()
    assert {name: (a.dtype.name, a.shape) for name, a in arrays.items() if name != "masks"} == {
        "boxes": ("float32", (3, 4)),
        "scores": ("float32", (3,)),
        "labels": ("int64", (3,)),
    }
    assert equal(Detections.from_numpy(arrays), found)
    for classes in (None, CLASSES):
        records = json.loads(json.dumps(found.to_coco(5, classes)))
        assert equal(Detections.from_coco(records, classes), found)
        assert equal(Detections.from_coco(records[::-1], classes), found)  # best first, in any order
    nothing = found[:0]
    assert len(Detections.from_coco(nothing.to_coco(1))) == len(Detections.from_numpy(nothing.to_numpy())) == 0


def test_records_of_coco():
    first, *_ = some(BITMAPS).to_coco(42, CLASSES)
    assert first.pop("score") == pytest.approx(0.9)
    assert first == {
        "image_id": 42,
        "category_id": 21,
        "bbox": [3.25, 2, 8.75, 7],
        "segmentation": mask_codes(BITMAPS)[0],
    }
    assert [record["category_id"] for record in some().to_coco(42)] == [3, 1, 2]
    assert "segmentation" not in some(BITMAPS).to_coco(42, masks=False)[0]
    doubles = attrs.evolve(some(), boxes=some().boxes.double())
    doubles.to_coco(1)
    assert torch.equal(doubles.boxes, some().boxes.double())


RECORD = {"image_id": 1, "category_id": 7, "bbox": [0, 0, 2, 2], "score": 0.5}
CODE = {"size": [20, 30], "counts": "abc"}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([RECORD | {"bbox": [0, 0, 2]}], r"bbox: found \[0, 0, 2\], expected four numbers \[x, y, width, height\]"),
        ([RECORD | {"score": None}], "score: found None, expected a number"),
        ([RECORD | {"category_id": 8}], "category_id: found 8, which is of no class; the classes have 7, 18, 21"),
        ([RECORD | {"segmentation": CODE}, RECORD], "1 of 2 records have a segmentation, expected all or none"),
        ([RECORD | {"segmentation": [[0, 0, 2, 2, 0, 2]]}], "segmentation: expected run-length codes {size:"),
        ([RECORD | {"segmentation": CODE | {"counts": [600]}}], "segmentation: expected run-length codes whose"),
    ],
)
def test_records_that_are_none(records, message):
    with pytest.raises(DetError, match=message):
        Detections.from_coco(records, CLASSES)


def test_other_mistakes():
    with pytest.raises(DetError, match="category_id: found 0, which is of no class"):
        Detections.from_coco([RECORD | {"category_id": 0}])
    with pytest.raises(DetError, match="a detection has label 2, but there are 2 classes"):
        some().to_coco(1, Classes.numbered(2))
    with pytest.raises(DetError, match="a detection has label -1, but there are 3 classes"):
        Detections(boxes=torch.zeros(1, 4), scores=torch.ones(1), labels=torch.tensor([-1])).to_coco(1, CLASSES)
    with pytest.raises(DetError, match="arrays of detections: found boxes, missing: scores, labels"):
        Detections.from_numpy({"boxes": np.zeros((1, 4))})
    with pytest.raises(DetError, match=r"arrays of detections have lengths \[1, 2\], expected one length"):
        Detections.from_numpy({"boxes": np.zeros((1, 4)), "scores": np.zeros(2), "labels": np.zeros(1)})


def test_supervision_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(
        DetError,
        match=r"^converting to supervision requires supervision, which .* install './core\[supervision\]'`$",
    ):
        some().to_supervision()


@pytest.mark.parametrize("masks", [None, BITMAPS])
def test_supervision_gets_what_its_constructor_takes(monkeypatch, masks):
    """With a stand-in for its Detections, whose arguments are those of supervision 0.25 to 0.29."""

    class Stand:
        def __init__(self, xyxy, mask=None, confidence=None, class_id=None, tracker_id=None, data=None):
            self.xyxy, self.mask, self.confidence, self.class_id, self.data = xyxy, mask, confidence, class_id, data

    module = types.ModuleType("supervision")
    module.Detections = Stand
    monkeypatch.setitem(sys.modules, "supervision", module)
    there = some(masks).to_supervision(CLASSES)
    assert list(there.data["class_name"]) == ["cow", "cat", "dog"]
    assert equal(Detections.from_supervision(there), some(masks))
    bare = Detections.from_supervision(Stand(there.xyxy))
    assert bare.scores.tolist() == [1, 1, 1]
    assert bare.labels.tolist() == [0, 0, 0]


def test_supervision_itself():
    supervision = pytest.importorskip("supervision")
    there = some(BITMAPS).to_supervision(CLASSES)
    assert isinstance(there, supervision.Detections)
    assert len(there[there.confidence > 0.3]) == 2
    assert equal(Detections.from_supervision(there), some(BITMAPS))


# Masks that are no bitmaps


def test_compressed_masks_of_detections():
    found = some(CompressedMasks.of_bitmaps(BITMAPS))
    assert found.has_masks
    assert found.region_masks is None
    assert found.mask_codes() == mask_codes(BITMAPS)
    for chosen in (slice(1, 3), torch.tensor([2, 0]), torch.tensor([True, False, True])):
        assert torch.equal(found[chosen].masks, BITMAPS[chosen])
    assert found.to("cpu").masks.dtype == torch.bool
    turned = CompressedMasks.of_bitmaps(BITMAPS).mirrored(True, False)
    assert mask_codes(turned) == mask_codes(BITMAPS.flip(-1))


def test_masks_in_a_larger_image():
    size, x, y = (50, 70), 11, 23
    expected = torch.zeros(3, *size, dtype=torch.bool)
    expected[:, y : y + 20, x : x + 30] = BITMAPS
    assert torch.equal(placed_bitmaps(BITMAPS, x, y, size).bitmaps().bool(), expected)
    regions = RegionMasks(
        probabilities=torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)),
        boxes=torch.tensor([[3.0, 2, 14, 13], [8, 1, 20, 18], [0, 0, 30, 20]]),
        size=(20, 30),
    )
    for given in (regions, regions.mirrored()):
        placed = given.placed(x, y, size)
        assert torch.equal(placed.bitmaps()[:, y : y + 20, x : x + 30], given.bitmaps())
        assert placed.size == size


def test_unions_of_masks():
    both = united(CompressedMasks.of_bitmaps(BITMAPS), [[0, 2], [1]])
    assert torch.equal(both.bitmaps().bool(), torch.stack([BITMAPS[0] | BITMAPS[2], BITMAPS[1]]))
