"""Roboflow's empty root category, and the setting `classes`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from det_core.data.class_choice import class_entries
from det_core.data.coco_dataset import CocoDataset
from det_core.data.coco_sections import Sections, choose_classes, without_root
from det_core.errors import DataError
from det_core.structures import Classes

MakeCoco = Callable[..., Path]

ROBOFLOW = [
    {"id": 0, "name": "cells", "supercategory": "none"},
    {"id": 1, "name": "RBC", "supercategory": "cells"},
    {"id": 2, "name": "WBC", "supercategory": "cells"},
]


def test_the_empty_root_is_left_out_and_said() -> None:
    left, note = without_root(ROBOFLOW, [{"category_id": 1}, 7, {}])
    assert left == ROBOFLOW[1:]
    assert note.startswith("category id 0 ('cells') is left out: it is the root of the other categories and has no ann")


@pytest.mark.parametrize(
    ("categories", "annotations"),
    [
        (ROBOFLOW, [{"category_id": 0}]),  # it has annotations
        (ROBOFLOW[:1], []),  # it is the only one
        ([*ROBOFLOW, {"id": 3, "name": "other", "supercategory": "none"}], []),
        ([*ROBOFLOW, {"id": 3, "name": "other"}], []),
        ([{"id": 0, "name": "a"}, {"id": 1, "name": "b"}], []),
    ],
)
def test_other_categories_stay(categories: list[dict[str, Any]], annotations: list[Any]) -> None:
    assert without_root(categories, annotations) == (categories, "")


def sections(**more: Any) -> Sections:
    records = [{"id": i, "category_id": number} for i, number in enumerate((3, 5, 7, 3, 9))]
    classes = Classes(names=("cat", "dog", "bus"), ids=(3, 5, 7))
    return Sections(path=Path("a.json"), images=[], annotations=[*records, "x"], classes=classes, **more)


def test_classes_are_chosen_ordered_renamed_and_merged() -> None:
    made = choose_classes(sections(), class_entries(("bus", "dog = pet", "cat=pet")))
    assert made.classes == Classes(names=("bus", "pet"), ids=(7, 5))
    numbers = [a["category_id"] for a in made.annotations if isinstance(a, dict)]
    assert numbers == [5, 5, 7, 5, 9]  # 9 is unknown, which the checks report, as `x`
    assert made.dropped == {}


def test_objects_of_other_classes_are_counted() -> None:
    places = [("f", str(i)) for i in range(6)]
    made = choose_classes(sections(places=places, dropped={"a": 1}), class_entries(("dog",)))
    assert [a["id"] for a in made.annotations if isinstance(a, dict)] == [1, 4]
    assert made.places == [("f", "1"), ("f", "4"), ("f", "5")]
    assert made.dropped == {"a": 1, "of other classes": 3}


def test_a_class_that_is_not_there() -> None:
    with pytest.raises(DataError) as raised:
        choose_classes(sections(), class_entries(("cat", "dgo=x")))
    assert (
        str(raised.value) == "a.json: `classes`: no class 'dgo'; did you mean \"dog\"?; the data set has: bus, cat, dog"
    )


def test_labels_follow_the_chosen_order(make_coco: MakeCoco) -> None:
    root = make_coco()
    whole = CocoDataset(root / "instances_train.json", root / "images")
    names = whole.classes.names
    turned = CocoDataset(root / "instances_train.json", root / "images", classes=names[::-1], masks=True)
    assert turned.classes.ids == whole.classes.ids[::-1]
    last = len(names) - 1
    for index in range(len(whole)):
        assert turned.load(index).labels.tolist() == [last - label for label in whole.load(index).labels.tolist()]
    assert turned.ground_truth()["annotations"][0]["category_id"] in whole.classes.ids
    one = CocoDataset(root / "instances_train.json", root / "images", classes=(f"{names[0]}=thing",), filter_empty=True)
    assert one.classes.names == ("thing",)
    assert one.dropped["of other classes"] == len(whole.table.ids) - len(one.table.ids)
    assert one.trained
