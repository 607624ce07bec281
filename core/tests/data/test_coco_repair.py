"""`on_bad_sample: repair`: what is clipped, what is left out, what stays an error, and that all is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from det_core.data.bad_samples import BadSamplesError
from det_core.data.coco_dataset import CocoDataset
from det_core.data.coco_repair import clip_polygon, repaired
from det_core.data.coco_sections import Sections
from det_core.structures import Classes

SQUARE = [10.0, 10, 60, 10, 60, 20, 10, 20]


def sections(*records: Any, **more: Any) -> Sections:
    """Annotations of one image of 40x30 pixels."""
    image = {"id": 1, "file_name": "a.png", "width": 40, "height": 30}
    annotations = [
        {"id": i, "image_id": 1, **record} if isinstance(record, dict) else record for i, record in enumerate(records)
    ]
    classes = Classes(names=("a",), ids=(1,))
    return Sections(path=Path("a.json"), images=[image, 7, {"id": 2}], annotations=annotations, classes=classes, **more)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"bbox": [-5, 2, 10, 10]}, {"bbox": [0, 2, 5, 10]}),
        ({"bbox": [30, 20, 12, 15], "area": 180}, {"bbox": [30, 20, 10, 10], "area": 100}),
        ({"bbox": [10, 10, 50, 10], "segmentation": [SQUARE]}, {"bbox": [10, 10, 30, 10], "area": 300}),
        ({"bbox": [0, 0, 0, 0], "segmentation": [[*SQUARE[:1], 10, 20, 10, 20, 20]]}, {"bbox": [10, 10, 10, 10]}),
        ({"bbox": [50, 2, 10, 10]}, None),
        ({"bbox": [2, 2, 0, 10]}, None),
        ({"bbox": [2, 2, 5, -1]}, None),
        ({"bbox": [50, 10, 10, 10], "segmentation": [[50, 10, 60, 10, 60, 20]]}, None),
        ({"bbox": [5, 5, 0, 9], "segmentation": [[5, 5, 5, 14, 5, 9]]}, None),
    ],
)
def test_what_leaves_the_image_is_clipped(record: dict[str, Any], expected: dict[str, Any] | None) -> None:
    made = repaired(sections(record, places=[("f", "1")]))
    if expected is None:
        assert made.annotations == []
        assert made.places == []
        assert made.notes == ("a.json: repaired: 0 annotations clipped to the image, 1 without area left out",)
        return
    (changed,) = made.annotations
    assert expected.items() <= changed.items()
    assert made.notes == ("a.json: repaired: 1 annotation clipped to the image, 0 without area left out",)


@pytest.mark.parametrize(
    "record",
    [
        {"bbox": [-1, 0, 42, 31]},  # within the tolerance
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, float("nan"), 4]},
        {"bbox": [-9, 2, 10, 10], "image_id": 3},
        {"bbox": [-9, 2, 10, 10], "image_id": 2},  # without a size
        {"bbox": [1, 2, 3, 4], "segmentation": [["x"]]},
        {"bbox": [1, 2, 3, 4], "segmentation": {"size": [30, 40], "counts": [1200]}},
        7,
    ],
)
def test_other_annotations_are_left_to_the_checks(record: Any) -> None:
    given = sections(record)
    made = repaired(given)
    assert made.annotations[0] is given.annotations[0]
    assert made.notes == ()


def test_clipped_polygons_have_the_pixels_that_are_in_the_image() -> None:
    """A property: the mask of the clipped polygon is the mask of the whole one within the image."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        angles = np.sort(rng.random(7)) * 2 * np.pi
        radius = rng.uniform(8, 40, 7)
        xs, ys = 20 + radius * np.cos(angles), 15 + radius * np.sin(angles)
        ring = [float(v) for point in zip(xs, ys, strict=True) for v in point]
        clipped = clip_polygon(ring, (40, 30))
        assert min(clipped) >= -1e-9
        assert max(clipped[::2]) <= 40
        assert max(clipped[1::2]) <= 30
        whole, part = _drawn(ring)[80:320, 80:400], _drawn(clipped)[80:320, 80:400]
        assert (whole != part).mean() < 0.02  # pixels of the outline


def _drawn(ring: list[float]) -> np.ndarray:
    """A polygon at eight times its size, with a margin of 10 pixels."""
    image = Image.new("1", (480, 400))
    ImageDraw.Draw(image).polygon([8 * (v + 10) for v in ring], fill=1)
    return np.asarray(image)


def test_a_data_set_is_repaired_when_it_is_opened(make_coco: Callable[..., Path]) -> None:
    def edit(data: dict[str, Any]) -> None:
        image = data["images"][0]
        first = {"id": 900, "image_id": image["id"], "category_id": data["categories"][0]["id"], "iscrowd": 0}
        data["annotations"].append({**first, "bbox": [-1.5, 0, 10, 10], "area": 100})
        data["annotations"].append({**first, "id": 901, "bbox": [0, 0, 0, 10], "area": 0})
        data["annotations"].append({**first, "id": 902, "bbox": [0, 0, 9, 10], "category_id": 77})

    root = make_coco(edit)
    file, images = root / "instances_train.json", root / "images"
    with pytest.raises(BadSamplesError, match="`--on-bad-sample repair` also clips boxes that leave their image"):
        CocoDataset(file, images)
    data = CocoDataset(file, images, on_bad_sample="repair")
    assert data.notes == (f"{file}: repaired: 1 annotation clipped to the image, 1 without area left out",)
    assert [bad.id for bad in data.skipped] == [902]  # the rest is skipped, as with `skip`
    assert 900 in data.table.ids.tolist()
    assert 901 not in data.table.ids.tolist()
    assert data.table.boxes[data.table.ids.tolist().index(900)].tolist() == [0, 0, 8.5, 10]
