"""COCO data sets: what is read, and what is said about what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from det_core.compressed_masks import CompressedMasks, bitmaps_of
from det_core.data.bad_samples import BadImage, BadSamplesError
from det_core.data.categories import check_same_categories
from det_core.data.coco_dataset import CocoDataset
from det_core.data.images import read_image
from det_core.errors import DataError, DetError

MakeCoco = Callable[..., Path]


def opened(root: Path, **more: Any) -> CocoDataset:
    return CocoDataset(root / "instances_train.json", root / "images", **more)


def spoil(key: str, index: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data[key][index].update(values)


def without(key: str, index: int, name: str) -> Callable[[dict[str, Any]], None]:
    return lambda data: data[key][index].pop(name)


def test_classes_are_in_ascending_id_order(make_coco: MakeCoco) -> None:
    data = opened(make_coco())
    assert data.classes.names == ("cat", "dog")
    assert data.classes.ids == (3, 7)


def test_sample(make_coco: MakeCoco) -> None:
    data = opened(make_coco(), masks=True)
    sample = data.load(0)
    assert sample.size == (40, 60)
    assert sample.image.dtype == torch.uint8
    assert sample.image.shape == (3, 40, 60)
    assert sample.boxes.tolist() == [[5, 6, 25, 16], [30, 20, 60, 40]]
    assert sample.boxes.dtype == torch.float32
    assert sample.labels.tolist() == [1, 0]
    assert sample.labels.dtype == torch.int64
    assert sample.ignored.tolist() == [False, False]
    assert isinstance(sample.masks, CompressedMasks)
    expected = torch.zeros(2, 40, 60, dtype=torch.uint8)
    expected[0, 6:16, 5:25] = 1
    expected[1, 20:40, 30:60] = 1
    assert torch.equal(sample.masks.bitmaps(), expected)
    assert sample.image_id == 10
    assert sample.file.endswith("10.png")


def test_image_pixels_are_rgb(make_coco: MakeCoco) -> None:
    root = make_coco()
    pixels = np.array(Image.open(root / "images" / "10.png"))
    assert np.array_equal(opened(root).load(0).image.permute(1, 2, 0).numpy(), pixels)


def test_crowd_is_ignored_and_its_runs_are_decoded(make_coco: MakeCoco) -> None:
    sample = opened(make_coco(), masks=True).load(2)
    assert sample.ignored.tolist() == [False, True]
    flat = bitmaps_of(sample.masks)[1].T.reshape(-1)  # run-length codes go down the columns
    assert flat.nonzero().flatten().tolist() == list(range(490, 520))


def test_image_without_objects(make_coco: MakeCoco) -> None:
    sample = opened(make_coco(), masks=True).load(3)
    assert sample.boxes.shape == (0, 4)
    assert sample.labels.shape == (0,)
    assert sample.masks is not None
    assert sample.masks.shape == (0, 32, 32)


def test_several_polygons_are_one_mask(make_coco: MakeCoco) -> None:
    rings = [[5, 6, 9, 6, 9, 10, 5, 10], [20, 12, 25, 12, 25, 16, 20, 16], [1, 1, 2, 2]]
    sample = opened(make_coco(spoil("annotations", 1, segmentation=rings)), masks=True).load(0)
    expected = torch.zeros(40, 60, dtype=torch.uint8)
    expected[6:10, 5:9] = 1
    expected[12:16, 20:25] = 1
    assert torch.equal(bitmaps_of(sample.masks)[0], expected)


def test_annotations_are_flat_arrays(make_coco: MakeCoco) -> None:
    data = opened(make_coco(), masks=True)
    table = data.table
    assert table.segmentations is not None
    names = [data._names.text, data._names.offsets]
    segments = [getattr(table.segmentations, n) for n in ("rings", "points", "coordinates", "codes", "code_bytes")]
    columns = [table.offsets, table.ids, table.boxes, table.labels, table.areas, table.crowd, table.trained]
    for array in [*names, *segments, *columns, data.sizes, data.image_ids]:
        assert isinstance(array, np.ndarray)
        assert array.dtype != np.object_
    assert table.offsets.tolist() == [0, 2, 3, 5, 5]


def test_ground_truth_is_the_file(make_coco: MakeCoco) -> None:
    root = make_coco()
    truth, data = opened(root, masks=True).ground_truth(), json.loads((root / "instances_train.json").read_text())
    by_id = {a["id"]: a for a in truth["annotations"]}
    for original in data["annotations"]:
        found = by_id[original["id"]]
        for key in ("image_id", "category_id", "bbox", "area", "iscrowd"):
            assert found[key] == original[key]
        if not original["iscrowd"]:
            assert found["segmentation"] == original["segmentation"]
    assert truth["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    assert truth["images"] == data["images"]
    json.dumps(truth)
    assert "segmentation" not in opened(root).ground_truth()["annotations"][0]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"area": 0}, "without area"),
        ({"bbox": [5, 6, 0.5, 10]}, "with a side below 1 pixel"),
        ({"bbox": [5, 6, 10, 0.9]}, "with a side below 1 pixel"),
        ({"ignore": 1}, "marked as ignored"),
    ],
)
def test_reference_rules_drop_from_training_only(make_coco: MakeCoco, change: dict[str, Any], rule: str) -> None:
    data = opened(make_coco(spoil("annotations", 1, **change)), masks=True)
    assert data.load(0).labels.tolist() == [0]
    assert data.dropped == {rule: 1, "crowd regions": 1}
    assert data.skipped == []
    assert len(data.ground_truth()["annotations"]) == 5


def test_flat_polygon_of_no_area_is_dropped_by_rule(make_coco: MakeCoco) -> None:
    """COCO's training set holds two records like this one."""
    change = {
        "bbox": [29.65, 38.33, 1.03, 0.0],
        "area": 0.0,
        "segmentation": [[29.65, 38.33, 29.65, 38.33, 30.68, 38.33, 30.68, 38.33]],
    }
    data = opened(make_coco(spoil("annotations", 1, **change)), masks=True)
    assert data.dropped == {"without area": 1, "crowd regions": 1}
    assert len(data.load(0).boxes) == 1


def test_box_a_pixel_outside_is_clipped(make_coco: MakeCoco) -> None:
    data = opened(make_coco(spoil("annotations", 1, bbox=[-1, 6, 61.5, 34.5])))
    assert data.load(0).boxes[0].tolist() == [0, 6, 60, 40]


def test_filters(make_coco: MakeCoco) -> None:
    root = make_coco()
    assert opened(root).image_ids.tolist() == [10, 20, 30, 40]
    assert opened(root, filter_empty=True).image_ids.tolist() == [10, 20, 30]
    filtered = opened(root, min_size=32, filter_empty=True)
    assert filtered.image_ids.tolist() == [10, 30]
    assert filtered.load(1).labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="no image is left of 4 records: 0 bad samples, filter_empty=False, min_size=1"):
        opened(root, min_size=100)


BAD: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (without("images", 0, "width"), r"images\[0\] id 10: has no `width`"),
    (spoil("images", 0, id="10"), r"images\[0\]: `id` is '10', expected a whole number"),
    (spoil("images", 0, file_name=""), r"images\[0\] id 10: `file_name` is '', expected the name of a file"),
    (spoil("images", 0, height=0), r"images\[0\] id 10: `height` is 0, expected a whole number of pixels"),
    (spoil("images", 1, id=10), r"images\[1\]: image id 10 is given twice"),
    (spoil("images", 0, file_name="x/none.png"), r"none\.png: image id 10: the image file does not exist"),
    (lambda d: d["annotations"].__setitem__(0, 5), r"annotations\[0\]: is a number, expected an object"),
    (without("annotations", 0, "bbox"), r"annotations\[0\] id 1: has no `bbox`"),
    (spoil("annotations", 0, id=None), r"annotations\[0\]: `id` is None, expected a whole number"),
    (spoil("annotations", 1, id=1), r"annotations\[1\] id 1: annotation id 1 is given twice"),
    (spoil("annotations", 1, image_id=99), r"annotations\[1\] id 2: unknown image id 99"),
    (
        spoil("annotations", 1, category_id=5),
        r"annotations\[1\] id 2: image id 10 \(10\.png\): unknown category id 5; `categories` has 3, 7",
    ),
    (spoil("annotations", 1, iscrowd=2), r"annotations\[1\] id 2: image id 10 \(10\.png\): `iscrowd` is 2"),
    (spoil("annotations", 1, bbox=[1, 2, 3]), r"box \[1, 2, 3\] is not four finite numbers"),
    (spoil("annotations", 1, bbox=[1, 2, float("nan"), 3]), r"box \[1, 2, nan, 3\] is not four finite numbers"),
    (spoil("annotations", 1, bbox=[1, 2, 0, 3]), r"id 2: image id 10 \(10\.png\): box \[1, 2, 0, 3\] has no area"),
    (spoil("annotations", 1, bbox=[1, 2, 3, -4]), r"box \[1, 2, 3, -4\] has no area"),
    (spoil("annotations", 1, bbox=[70, 2, 3, 4]), r"\[70, 2, 3, 4\] .* reaches outside its image of 60x40 pixels"),
    (spoil("annotations", 1, bbox=[50, 2, 12, 4]), r"\[50, 2, 12, 4\] .* reaches outside its image of 60x40 pixels"),
    (spoil("annotations", 1, area="big"), r"`area` is 'big', expected a finite number"),
    (without("annotations", 1, "segmentation"), "id 2: .*: has no segmentation, but the model trains on masks"),
    (spoil("annotations", 1, segmentation=[]), "has no segmentation, but the model trains on masks"),
    (spoil("annotations", 1, segmentation=3), "segmentation is int, expected a list of polygons"),
    (spoil("annotations", 1, segmentation=[3]), "segmentation holds int, expected polygons"),
    (spoil("annotations", 1, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "a polygon of 7 numbers, expected pairs"),
    (spoil("annotations", 1, segmentation=[[1, 2, 3, 4, 5, "6"]]), "a value that is not a finite number"),
    (spoil("annotations", 1, segmentation=[[1, 2, 3, 4]]), "no polygon of three points or more"),
    (spoil("annotations", 1, segmentation={"size": [60, 40], "counts": [2400]}), r"of size \[60, 40\], but the"),
    (spoil("annotations", 1, segmentation={"size": [40, 60], "counts": None}), "without usable `counts`"),
    (spoil("annotations", 1, segmentation={"size": [40, 60], "counts": "~"}), "whose text is damaged"),
    (spoil("annotations", 1, segmentation={"size": [40, 60], "counts": [99]}), "99 pixels, but the image has 2400"),
]


@pytest.mark.parametrize(("edit", "message"), BAD)
def test_bad_records_are_reported_or_skipped(
    make_coco: MakeCoco, edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    root = make_coco(edit)
    with pytest.raises(BadSamplesError, match=message) as raised:
        opened(root, masks=True)
    assert f"{len(raised.value.samples)} bad sample" in str(raised.value).splitlines()[0]
    assert "--on-bad-sample skip" in str(raised.value)
    assert str(root) in str(raised.value)
    data = opened(root, masks=True, on_bad_sample="skip")
    assert data.skipped == list(raised.value.samples)
    for index in range(len(data)):
        sample = data.load(index)
        assert sample.masks is not None
        assert len(sample.boxes) == len(sample.labels) == len(sample.masks)


def test_all_problems_at_once_ten_are_shown(make_coco: MakeCoco) -> None:
    def edit(data: dict[str, Any]) -> None:
        record = data["annotations"][0]
        data["annotations"] += [{**record, "id": 100 + i, "category_id": 50} for i in range(14)]

    with pytest.raises(BadSamplesError) as raised:
        opened(make_coco(edit))
    lines = str(raised.value).splitlines()
    assert "14 bad samples" in lines[0]
    assert len([line for line in lines if "unknown category" in line]) == 10
    assert lines[11] == "  ... and 4 more"
    assert len(raised.value.samples) == 14
    assert raised.value.samples[0].id == 100


def test_a_bad_image_takes_its_annotations_along(make_coco: MakeCoco) -> None:
    root = make_coco()
    (root / "images" / "10.png").unlink()
    data = opened(root, on_bad_sample="skip")
    assert [bad.id for bad in data.skipped] == [10]
    assert data.image_ids.tolist() == [20, 30, 40]
    assert data.table.ids.tolist() == [4, 1, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the annotation file is empty"),
        ("  \n", "the annotation file is empty"),
        ("{", "the annotation file is not JSON: .*line 1"),
        ("[]", "found a list; a COCO file is an object"),
        ('{"images": [1]}', r"has no `annotations` \(found images\)"),
        ('{"images": [1], "annotations": 3, "categories": []}', "`annotations` is a number"),
        ('{"images": [], "annotations": [], "categories": []}', "`images` is empty"),
        ('{"images": [1], "annotations": [], "categories": []}', "`annotations` is empty"),
        ('{"images": [1], "annotations": [1], "categories": []}', "`categories` is empty"),
        ('{"images": [1], "annotations": [1], "categories": [{"id": 1}]}', r"categories\[0\]: has no `name`"),
        ('{"images": [1], "annotations": [1], "categories": [{"id": "a", "name": "b"}]}', "expected a whole `id`"),
        (
            '{"images": [1], "annotations": [1], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "category id 1 is given twice",
        ),
    ],
)
def test_unusable_files(make_coco: MakeCoco, text: str, message: str) -> None:
    root = make_coco()
    (root / "instances_train.json").write_text(text)
    for how in ("error", "skip"):
        with pytest.raises(DataError, match=message) as raised:
            opened(root, on_bad_sample=how)
        assert "instances_train.json" in str(raised.value)


def test_missing_file_and_wrong_choice(make_coco: MakeCoco) -> None:
    root = make_coco()
    with pytest.raises(DataError, match="on_bad_sample: found 'ignore', allowed: error, skip"):
        opened(root, on_bad_sample="ignore")
    (root / "instances_train.json").unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        opened(root)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def test_truncated_image_names_its_file(make_coco: MakeCoco) -> None:
    root = make_coco()
    truncate(root / "images" / "10.png")
    with pytest.raises(BadImage, match=r"10\.png: image id 10: the image cannot be decoded: .*truncated"):
        opened(root).load(0)


def test_image_of_another_size(make_coco: MakeCoco) -> None:
    root = make_coco()
    Image.new("RGB", (40, 60)).save(root / "images" / "10.png")
    with pytest.raises(BadImage, match=r"the image is 40x60 pixels .* says 60x40; correct"):
        opened(root).load(0)


def test_read_image_errors(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match=r"none\.png: the image file does not exist"):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(BadImage, match=r"text\.png: not a readable image \(5 bytes\)"):
        read_image(tmp_path / "text.png")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(BadImage, match="the file is empty"):
        read_image(tmp_path / "empty.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(BadImage, match=r"more than 8 bits \(PIL mode I;16.*convert the image to 8-bit"):
        read_image(tmp_path / "deep.png")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(BadImage, match=r"more than 8 bits \(PIL mode F\)"):
        read_image(tmp_path / "float.tiff")
    with pytest.raises(BadImage, match="cannot be decoded"):
        read_image(tmp_path)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "LA"])
def test_eight_bit_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.tiff" if mode == "CMYK" else "x.png")
    Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (3, 4, 6)
    assert image.dtype == torch.uint8
    assert int(image.min()) == 255


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (6, 4))
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: what is top left is to be top right
    picture.save(tmp_path / "x.png", exif=exif)
    image = read_image(tmp_path / "x.png")
    assert image.shape == (3, 6, 4)
    assert image[0, 0, 3] == 255


def test_same_categories(make_coco: MakeCoco) -> None:
    train = opened(make_coco())
    check_same_categories(train, opened(make_coco(name="same")))

    def edit(data: dict[str, Any]) -> None:
        data["categories"] = [{"id": 3, "name": "lion"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "elk"}]

    with pytest.raises(DataError) as raised:
        check_same_categories(train, opened(make_coco(edit, name="other")))
    text = str(raised.value)
    assert "id 3: 'cat' in" in text
    assert "but 'lion' in" in text
    assert "id 9: 'elk' is only in" in text
    assert isinstance(raised.value, DetError)


def test_file_names_of_any_script_in_folders(make_coco: MakeCoco) -> None:
    root = make_coco(spoil("images", 0, file_name="b/日本 é.png"))
    (root / "images" / "b").mkdir()
    (root / "images" / "10.png").rename(root / "images" / "b" / "日本 é.png")
    assert opened(root).load(0).file.endswith("b/日本 é.png")
