"""The report on a data set, and its pictures."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import det_core
from det_core.data.coco_dataset import CocoDataset
from det_core.data.data_config import ResizeConfig
from det_core.reports.dataset_report import anchor_fit, anchor_shapes, data_report

MakeCoco = Callable[..., Path]


def opened(root: Path, **more: Any) -> CocoDataset:
    return CocoDataset(root / "instances_train.json", root / "images", **more)


def test_counts(make_coco: MakeCoco) -> None:
    report = data_report(opened(make_coco()))
    assert (report.images, report.objects, report.crowd, report.empty_images) == (4, 4, 1, 1)
    assert [(c.name, c.id, c.objects, c.images) for c in report.classes] == [("cat", 3, 2, 2), ("dog", 7, 2, 2)]
    assert report.areas == {"small": 4, "medium": 0, "large": 0}
    assert report.objects_per_image == {"mean": 1.0, "median": 1.0, "max": 2.0}
    assert report.image_sizes == {"min_height": 32, "min_width": 30, "max_height": 50, "max_width": 64}
    assert report.percentiles["50"] == pytest.approx((np.sqrt(200) + np.sqrt(410)) / 2)
    assert json.loads(json.dumps(report.to_dict()))["classes"][0]["objects"] == 2
    text = report.render()
    assert "4 images of 30x32 to 64x50 pixels, 1 without objects" in text
    assert "No problems found." in text
    assert max(map(len, text.splitlines())) <= 80


def test_boxes_are_measured_as_the_network_sees_them(make_coco: MakeCoco) -> None:
    report = data_report(opened(make_coco()), resize=ResizeConfig(scales=((1000, 400),)))
    assert report.areas == {"small": 0, "medium": 0, "large": 4}
    squeezed = data_report(opened(make_coco()), resize=ResizeConfig(scales=((30, 20),), keep_ratio=False))
    assert squeezed.areas == {"small": 4, "medium": 0, "large": 0}
    assert "as the network sees them" in report.render()


def test_anchor_fit_by_hand() -> None:
    assert anchor_shapes(((2,), (0.25, 1), (4, 8))).tolist() == [[16, 4], [8, 8], [32, 8], [16, 16]]
    sides = np.array([[8.0, 8], [16, 16], [100, 1]])
    fit = anchor_fit(sides, ((2,), (1,), (4, 8)))
    assert fit.poor == pytest.approx(1 / 3)
    assert fit.mean_iou == pytest.approx((1 + 1 + 8 / (64 + 100 - 8)) / 3)
    assert (fit.smallest, fit.largest) == (8, 16)
    assert fit.poor_by_area == {"small": pytest.approx(1 / 3), "medium": 0.0, "large": 0.0}


def test_anchors_in_the_text(make_coco: MakeCoco) -> None:
    report = data_report(opened(make_coco()), anchors=((8,), (0.5, 1, 2), (16, 32)))
    assert report.anchors is not None
    assert report.anchors.poor == 1.0
    assert "100.0% of the boxes have no anchor" in report.render()
    assert "Smaller or larger anchors" in report.render()


def test_problems_are_listed(make_coco: MakeCoco) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["annotations"][0]["bbox"] = [0, 0, 0, 5]
        data["annotations"][1]["area"] = 0
        data["categories"][0]["name"] = "wolf"

    root = make_coco(edit)
    (root / "images" / "20.png").unlink()
    path = root / "images" / "40.png"
    path.write_bytes(path.read_bytes()[:100])
    data = opened(root, on_bad_sample="skip")
    report = data_report(data, other=opened(make_coco(name="val")), read_images=True)
    assert [bad.id for bad in report.bad] == [20, 1, 40]
    assert report.dropped == {"without area": 1, "crowd regions": 1}
    assert len(report.mismatch) == 1
    text = report.render().replace("\n", " ")
    for part in (
        "Not usable: 3 bad samples",
        "has no area",
        "Categories differ",
        "'wolf' in",
        "1 annotation left out of training",
    ):
        assert part in text
    json.dumps(report.to_dict())


def test_class_names_are_shown_as_they_are(make_coco: MakeCoco) -> None:
    """Neither markup nor emoji of the table library."""

    def edit(data: dict[str, Any]) -> None:
        data["categories"] = [{"id": 7, "name": "stop [/old]"}, {"id": 3, "name": ":car:"}]

    text = data_report(opened(make_coco(edit))).render()
    assert "stop [/old]" in text
    assert ":car:" in text


SOURCE = Path(det_core.__file__).parent


def test_no_text_is_read_as_markup() -> None:
    """Names of classes and files go through every console and column."""
    calls = [
        (path, ast.unparse(node))
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Console", "TextColumn")
    ]
    assert len(calls) >= 6
    assert [call for call in calls if "markup=False" not in call[1]] == []


def test_images_in_both_splits_are_listed(make_coco: MakeCoco) -> None:
    root = make_coco()
    train, val = opened(root), opened(make_coco(name="other"))
    assert data_report(train).shared == ()
    report = data_report(train, other=val)
    assert len(report.shared) == 4
    assert report.shared[0].endswith(f" equals {train.file(0)}") or " equals " in report.shared[0]
    text = report.render()
    assert "Images of equal content in both splits, so metrics say too much: 4" in text
    assert not report.has_problems()
