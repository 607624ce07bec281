"""Data sets in labelme's format: shapes, groups, splits, and every mistake with its file and shape."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from det_core.data.bad_samples import BadSamplesError
from det_core.data.coco_dataset import CocoDataset
from det_core.data.data_root import LayoutError
from det_core.data.files_config import LabelmeConfig
from det_core.data.format_search import formats_at

SQUARE = [[10, 5], [30, 5], [30, 15], [10, 15]]


def shape(label: str = "cat", points: Any = SQUARE, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def write(root: Path, name: str, *shapes: Any, **more: Any) -> Path:
    """An image of 40x20 pixels and its JSON file, as labelme writes it."""
    path = root / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20)).save(path.with_suffix(".png"))
    content = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": path.with_suffix(".png").name}
    path.write_text(json.dumps({**content, "imageData": None, "imageHeight": 20, "imageWidth": 40, **more}))
    return path


def opened(root: Path, split: str = "train", masks: bool = True, **more: Any) -> CocoDataset:
    data = LabelmeConfig(split=split).build(str(root), masks=masks, **more)
    assert isinstance(data, CocoDataset)
    return data


def test_shapes_become_masks_and_boxes(tmp_path: Path) -> None:
    rectangle, circle = shape("dog", [[30, 15], [10, 5]], "rectangle"), shape("dog", [[20, 10], [25, 10]], "circle")
    write(tmp_path, "a", shape(), rectangle, circle)
    data = opened(tmp_path)
    assert data.classes.names == ("cat", "dog")
    assert data.classes.ids == (1, 2)
    sample = data.load(0)
    assert sample.labels.tolist() == [0, 1, 1]
    assert sample.boxes[:2].tolist() == [[10, 5, 30, 15]] * 2
    assert sample.boxes[2].tolist() == pytest.approx([15, 5, 25, 15])
    assert sample.masks is not None
    areas = sample.masks.bitmaps().sum(dim=(1, 2)).tolist()
    assert areas[:2] == [200, 200]
    assert areas[2] == pytest.approx(np.pi * 25, rel=0.1)


def test_a_group_is_one_object(tmp_path: Path) -> None:
    left, right = [[0, 0], [10, 0], [10, 10]], [[30, 10], [40, 10], [40, 20]]
    write(tmp_path, "a", shape(points=left, group_id=1), shape("dog", group_id=1), shape(points=right, group_id=1))
    sample = opened(tmp_path).load(0)
    assert sample.labels.tolist() == [0, 1]
    assert sample.boxes.tolist() == [[0, 0, 40, 20], [10, 5, 30, 15]]


def test_a_mask_is_a_picture_at_its_first_point(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[255, 0], [255, 255]], np.uint8)).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    write(tmp_path, "a", shape(points=[[4, 6], [5, 7]], kind="mask", mask=text))
    sample = opened(tmp_path).load(0)
    assert sample.masks is not None
    assert sample.masks.bitmaps()[0].nonzero().tolist() == [[6, 4], [7, 4], [7, 5]]
    assert sample.boxes.tolist() == [[4, 6, 6, 8]]
    write(tmp_path, "a", shape(points=[[39, 6], [41, 7]], kind="mask", mask=text))
    with pytest.raises(BadSamplesError, match=r"a\.json: shapes\[0\]: `mask` reaches outside its image of 40x20"):
        opened(tmp_path)
    write(tmp_path, "a", shape(points=[[4, 6], [5, 7]], kind="mask", mask="no"))
    with pytest.raises(BadSamplesError, match=r"shapes\[0\]: `mask` is no PNG in base64"):
        opened(tmp_path)
    write(tmp_path, "a", shape(group_id=1), shape(points=[[4, 6], [5, 7]], kind="mask", mask=text, group_id=1))
    with pytest.raises(BadSamplesError, match=r"shapes\[0\]: a shape of type mask has a `group_id` with other shapes"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (7, "is 7, expected an object"),
        (shape(""), "`label` is '', expected the name of a class"),
        (shape(kind="line"), "`shape_type` 'line' has no area; allowed: polygon, rectangle, circle, mask"),
        (shape(points=[[1, 2], [3]]), "`points` is [[1, 2], [3]], expected a list of [x, y]"),
        (shape(points=SQUARE[:2]), "a polygon of 2 points, expected 3 or more"),
        (shape(points=SQUARE[:3], kind="rectangle"), "a rectangle of 3 points, expected 2"),
        (shape(group_id=[1]), "`group_id` is [1], expected a number or null"),
        (shape(points=[[0, 0], [50, 0], [50, 10]]), "reaches outside its image of 40x20 pixels"),
    ],
)
def test_mistakes_in_shapes(tmp_path: Path, wrong: Any, message: str) -> None:
    path = write(tmp_path, "a", shape(), wrong)
    with pytest.raises(BadSamplesError) as raised:
        opened(tmp_path)
    (bad,) = raised.value.samples
    assert bad.file == str(path)
    assert bad.what.startswith("shapes[1]: ")
    assert message in bad.what


def test_mistakes_in_files(tmp_path: Path) -> None:
    write(tmp_path, "good", shape())
    write(tmp_path, "a", shape(), imageWidth=41)
    write(tmp_path, "b", shape(), imagePath="none.png")
    write(tmp_path, "c", shape(), imagePath=3)
    write(tmp_path, "d").write_text('{"shapes": 3}')
    write(tmp_path, "e").write_text('{"shapes": [')
    with pytest.raises(BadSamplesError) as raised:
        opened(tmp_path)
    found = {Path(bad.file).name: bad.what for bad in raised.value.samples}
    assert found["a.json"].startswith("the image is 40x20 pixels (with its EXIF orientation), but a.json says 41x20")
    assert found["none.png"] == "`imagePath` of b.json: the image file does not exist"
    assert found["c.json"].startswith("`imagePath` is 3, expected the path of the image")
    assert found["d.json"] == "has no list `shapes`: not a file of labelme"
    assert found["e.json"].startswith("not JSON: ")
    assert len(opened(tmp_path, on_bad_sample="skip")) == 1


def test_images_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path, "json/a", shape(), imagePath="..\\pictures\\a.png")
    (tmp_path / "pictures").mkdir()
    path.with_suffix(".png").rename(tmp_path / "pictures/a.png")
    assert Path(opened(tmp_path).file(0)).resolve() == (tmp_path / "pictures/a.png").resolve()
    write(tmp_path, "json/a", shape(), imagePath="C:\\work\\a.png")  # of another machine, but the image is beside
    assert Path(opened(tmp_path).file(0)).name == "a.png"


def test_splits_are_folders(tmp_path: Path) -> None:
    write(tmp_path, "all/a", shape())
    assert len(opened(tmp_path)) == 1
    assert not LabelmeConfig(split="val").is_there(str(tmp_path))
    assert LabelmeConfig(split="val").is_there(str(tmp_path / "none"))  # opening it says what is wrong
    with pytest.raises(LayoutError, match="no labelme files .* in a folder val or valid or validation or test for the"):
        opened(tmp_path, "val")
    write(tmp_path, "train/b", shape("dog"))
    write(tmp_path, "Valid/c", shape())
    assert Path(opened(tmp_path).file(0)).name == "b.png"
    assert LabelmeConfig(split="val").is_there(str(tmp_path))
    assert opened(tmp_path, "val").classes == opened(tmp_path).classes


def test_what_is_not_labelled_is_noted(tmp_path: Path) -> None:
    write(tmp_path, "a", shape())
    Image.new("RGB", (4, 4)).save(tmp_path / "extra.png")
    assert opened(tmp_path).notes == ("1 image without a labelme file left out",)
    assert formats_at(tmp_path) == {"labelme"}
    (tmp_path / "extra.png").unlink()
    assert opened(tmp_path).notes == ()


def test_no_labels_and_no_files(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"no labelme files \(JSON with `shapes`\) for the train split"):
        opened(tmp_path)
    write(tmp_path, "a")
    with pytest.raises(LayoutError, match="the labelme files have no shape with a label"):
        opened(tmp_path)
