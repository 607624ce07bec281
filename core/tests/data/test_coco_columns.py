"""Checking annotations at once as arrays finds what looking at each record finds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from det_core.data import coco_checks
from det_core.data.coco_columns import RULES, columns_of
from det_core.data.coco_dataset import CocoDataset
from det_core.errors import DataError

MakeCoco = Callable[..., Path]
ODD: list[Any] = [
    *(0, -1, 1, 3, 1.5, 2**70, None, "x", [], {}, True, float("nan"), 1e308, float("inf")),
    *([1, 2, 3], [1, 2, 0, 4], [-5, 0, 2, 2], [0, 0, 1e9, 3], [0, 0, 0.5, 3], ["1", 2, 3, 4], [True, 0, 3, 3]),
]
KEYS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "segmentation")


def spoiled(seed: int) -> Callable[[dict[str, Any]], None]:
    """Changes a few values of a few annotations to odd ones."""
    rng = random.Random(seed)

    def edit(data: dict[str, Any]) -> None:
        data["annotations"] += [dict(a, id=100 + i) for i, a in enumerate(data["annotations"])]
        for _ in range(rng.randrange(1, 5)):
            record = rng.choice(data["annotations"])
            if rng.random() < 0.2:
                record.pop(rng.choice(KEYS), None)
            else:
                record[rng.choice(KEYS)] = rng.choice(ODD)
        if rng.random() < 0.3:
            data["images"][0]["file_name"] = "missing.png"

    return edit


def outcome(root: Path, masks: bool) -> object:
    try:
        data = CocoDataset(root / "instances_train.json", root / "images", masks=masks, on_bad_sample="skip")
    except DataError as error:
        return str(error)
    table = data.table
    arrays = (table.offsets, table.ids, table.boxes, table.labels, table.areas, table.crowd, table.trained)
    return [str(bad) for bad in data.skipped], [a.tolist() for a in arrays], sorted(data.dropped.items())


@pytest.mark.parametrize("seed", range(60))
def test_the_fast_way_finds_what_the_slow_way_finds(
    make_coco: MakeCoco, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    root, masks = make_coco(spoiled(seed)), seed % 2 == 0
    fast = outcome(root, masks)
    monkeypatch.setattr(coco_checks, "suspects", lambda columns, *_: np.ones(len(columns), np.bool_))
    assert outcome(root, masks) == fast


def test_good_records_are_not_looked_at_one_by_one(make_coco: MakeCoco, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_coco()
    monkeypatch.setattr(coco_checks._AnnotationCheck, "__call__", None)
    assert len(CocoDataset(root / "instances_train.json", root / "images", masks=True)) == 4


def test_an_annotation_that_is_given_twice_is_found_wherever_it_stands(make_coco: MakeCoco) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["annotations"].append(dict(data["annotations"][0]))

    data = CocoDataset(make_coco(edit) / "instances_train.json", make_coco(edit) / "images", on_bad_sample="skip")
    assert [bad.what for bad in data.skipped] == ["annotations[5] id 1: annotation id 1 is given twice"]


def test_columns() -> None:
    records = [
        {"id": 5, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4.5]},
        {"id": 6, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "area": 0, "iscrowd": 1},
        {"id": 7, "image_id": 1, "category_id": 2, "bbox": [1, 2, 0.5, 4], "area": 9, "iscrowd": None},
        {"id": 8, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "area": None, "ignore": 1},
    ]
    columns = columns_of(json.loads(json.dumps(records)))
    assert columns is not None
    assert columns.areas.tolist() == [13.5, 0, 9, 12]
    assert columns.crowd.tolist() == [False, True, False, False]
    assert [RULES[rule] for rule in columns.rules] == [
        *("", "without area", "with a side below 1 pixel", "marked as ignored"),
    ]
    assert columns.take(np.array([2, 0])).ids.tolist() == [7, 5]
    for key, value in [("id", 1.0), ("bbox", (1, 2, 3, 4)), ("area", True), ("iscrowd", 2), ("image_id", "1")]:
        assert columns_of([records[0] | {key: value}]) is None
