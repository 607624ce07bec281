"""Values of the right type that no array, image or file can hold, and data sets that have nothing to learn from."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pycocotools import mask as coco_mask

from det_core.cli.main import cli
from det_core.data import images
from det_core.data.bad_samples import BadImage, BadSamplesError, check_objects
from det_core.data.coco_dataset import CocoDataset
from det_core.data.images import TURNS, image_size, read_image
from det_core.data.instance_masks import has_pixels
from det_core.data.voc_dataset import VocDataset
from det_core.data.voc_layout import find_voc_sets
from det_core.errors import DataError, DetError
from det_core.reports.dataset_report import data_report

MakeCoco = Callable[..., Path]


def opened(root: Path, **more: Any) -> CocoDataset:
    return CocoDataset(root / "instances_train.json", root / "images", **more)


def spoil(key: str, index: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data[key][index].update(values)


HUGE = 10**400
RING = [5, 6, 25, 6, 25, 16]
BAD: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (spoil("images", 0, id=2**127), r"images\[0\]: `id` is 1701.*, expected a whole number of at most 64 bits"),
    (spoil("images", 0, width=10**20), r"images\[0\] id 10: `width` is 1000.*, expected .* pixels from 1 to 1048576"),
    (spoil("images", 0, file_name="a\0b"), r"images\[0\] id 10: `file_name` has a NUL character"),
    (spoil("images", 0, file_name="\ud800.png"), r"images\[0\] id 10: `file_name` is not Unicode text"),
    (spoil("annotations", 0, id=2**64), r"annotations\[0\]: `id` is 18446744073709551616, expected"),
    (spoil("annotations", 0, image_id=2**127), r"annotations\[0\] id 1: unknown image id 1701"),
    (spoil("annotations", 0, category_id=2**127), r"unknown category id 1701"),
    (spoil("annotations", 0, bbox=[0, 0, HUGE, 5]), r"is not four finite numbers"),
    (spoil("annotations", 0, area=HUGE), r"`area` is 1000.*, expected a finite number"),
    *(
        (spoil("annotations", 1, segmentation=[[*RING, *point]]), message)
        for point, message in [
            ((1e9, 16), "image id 10 .*: segmentation has a polygon that reaches outside its image of 60x40 pixels"),
            ((5, 1e300), "reaches outside its image"),
            ((-2, 16), "reaches outside its image"),
            ((5, HUGE), "a polygon with a value that is not a finite number"),
        ]
    ),
]


@pytest.mark.parametrize(("edit", "message"), BAD, ids=range(len(BAD)))
def test_what_is_out_of_range_is_a_bad_sample(make_coco: MakeCoco, edit: Any, message: str) -> None:
    with pytest.raises(BadSamplesError, match=message):
        opened(make_coco(edit), masks=True)


def test_a_category_id_of_more_than_64_bits(make_coco: MakeCoco) -> None:
    with pytest.raises(DataError, match=r"categories\[0\]: expected a whole `id` of at most 64 bits"):
        opened(make_coco(spoil("categories", 0, id=2**64)))


def test_polygons_may_touch_the_edge_as_boxes_may(make_coco: MakeCoco) -> None:
    data = opened(make_coco(spoil("annotations", 1, segmentation=[[-1, 6, 61, 6, 61, 41]])), masks=True)
    assert data.load(0).masks is not None


def test_a_file_exists_where_it_is_read(make_coco: MakeCoco) -> None:
    """An absolute name is itself, also in the root folder; it is not looked for among the images."""
    root = make_coco(spoil("images", 0, file_name="/10.png"))
    with pytest.raises(BadSamplesError, match=r"/10\.png: image id 10: the image file does not exist"):
        opened(root, allow_outside=True)
    absolute = str(root / "images" / "10.png")
    assert opened(make_coco(spoil("images", 0, file_name=absolute))).load(0).file == absolute


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "/dev/zero", "../other.png", "../images/../other.png", "a/../../b.png"]
)
def test_a_name_that_leaves_the_folder_of_images(make_coco: MakeCoco, name: str) -> None:
    root = make_coco(spoil("images", 0, file_name=name))
    message = rf"images\[0\] id 10: `file_name` '{name}' is outside the image folder; .*--allow-outside"
    with pytest.raises(BadSamplesError, match=message):
        opened(root)


def test_images_outside_of_their_folder_where_that_is_allowed(make_coco: MakeCoco) -> None:
    root = make_coco(spoil("images", 0, file_name="../other.png"))
    (root / "images" / "10.png").rename(root / "other.png")
    assert opened(root, allow_outside=True).load(0).image_id == 10
    make_coco(spoil("images", 0, file_name="../other.png"), split="val")
    done = CliRunner().invoke(cli, ["data", "--data", str(root)])
    assert "is outside the image folder" in done.output
    assert done.exit_code == 1
    done = CliRunner().invoke(cli, ["data", "--data", str(root), "--allow-outside"])
    assert "is outside the image folder" not in done.output
    done = CliRunner().invoke(cli, ["data", "--allow-outside"])
    assert "--allow-outside: data of type 'sample' have no such setting" in done.output


def test_links_in_the_folder_of_images(make_coco: MakeCoco, tmp_path: Path) -> None:
    """A link is where its folder is; what `..` reaches through it is elsewhere."""
    (tmp_path / "far" / "away").mkdir(parents=True)
    root = make_coco(spoil("images", 0, file_name="link/10.png"))
    (root / "images" / "link").symlink_to(tmp_path / "far" / "away")
    (root / "images" / "10.png").rename(tmp_path / "far" / "away" / "10.png")
    assert opened(root).load(0).image_id == 10
    make_coco(spoil("images", 0, file_name="link/../x.png"))
    with pytest.raises(BadSamplesError, match=r"'link/\.\./x\.png' is outside the image folder"):
        opened(root)


def test_image_sets_that_leave_the_folder_of_images(make_voc: Callable[..., Path]) -> None:
    root = make_voc()
    (root / "ImageSets/Main/trainval.txt").write_text("000005\n../other\n")
    with pytest.raises(BadSamplesError, match=r"trainval\.txt: line 2: image '\.\./other' is outside the image folder"):
        VocDataset(find_voc_sets(root, "train"))
    with pytest.raises(BadSamplesError, match=r"other\.jpg: the image file does not exist"):
        VocDataset(find_voc_sets(root, "train"), allow_outside=True)


def test_extras_of_labelling_tools_do_no_harm(make_coco: MakeCoco, make_voc: Callable[..., Path]) -> None:
    """Fields that are null, and fields that no reader knows."""

    def extend(data: dict[str, Any]) -> None:
        data |= {"info": None, "licenses": None, "tags": [{"id": None}]}
        for record in data["images"]:
            record.update(license=None, coco_url=None, extra={"user_tags": []}, date_captured=0)
        for record in data["annotations"]:
            record.update(area=None, ignore=None, attributes={"occluded": False}, score=None, keypoints=None)
        data["annotations"][0]["iscrowd"] = None

    plain, extended = opened(make_coco()), opened(make_coco(extend, name="other"))
    assert extended.dropped == plain.dropped
    assert extended.trained == plain.trained
    root = make_voc("voc")
    path = root / "Annotations" / "000005.xml"
    more = "<occluded>Unspecified</occluded><difficult>{}</difficult><pose/><polygon><x1>5</x1></polygon>"
    text = path.read_text()
    for value, difficult in {"Unspecified": False, "False": False, "true": True}.items():
        path.write_text(text.replace("<name>dog</name>", f"<name>dog</name>{more.format(value)}"))
        assert VocDataset(find_voc_sets(root, "train")).load(0).ignored.tolist() == [difficult, True]


def test_the_error_for_no_image_names_what_is_bad(make_coco: MakeCoco) -> None:
    def empty(data: dict[str, Any]) -> None:
        data["images"] = [{**data["images"][0], "width": 0}]

    with pytest.raises(DataError, match=r"no image is left of .* records: \d+ bad samples.*\n  .*images\[0\] id 10"):
        opened(make_coco(empty), on_bad_sample="skip")


def every(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: [record.update(values) for record in data["annotations"]] and None


USELESS = [
    (every(area=0), "none trains (4 without area, 1 crowd regions)"),
    (every(ignore=1), "none trains (4 marked as ignored, 1 crowd regions)"),
    (every(bbox=[1, 1, 0.5, 9]), "none trains (4 with a side below 1 pixel, 1 crowd regions)"),
    (every(iscrowd=1), "none trains (5 crowd regions)"),
]


NO_PIXELS = [
    (every(segmentation=[[5.2, 6.2, 5.3, 6.2, 5.3, 6.3]]), "a polygon of less than a pixel"),
    (every(segmentation=[[5, 6, 25, 26, 5, 6]]), "a polygon that is a line"),
    (lambda data: [a.update(segmentation=empty_code(a)) for a in data["annotations"]] and None, "an empty code"),
]


def empty_code(record: dict[str, Any]) -> dict[str, Any]:
    height, width = {10: (40, 60), 20: (50, 30), 30: (48, 64)}[record["image_id"]]
    return {"size": [height, width], "counts": [height * width]}


@pytest.mark.parametrize(("edit", "what"), NO_PIXELS, ids=[what for _, what in NO_PIXELS])
def test_masks_without_pixels_do_not_train(make_coco: MakeCoco, edit: Any, what: str) -> None:
    """They teach that everything is background; where no mask is trained on, they do not matter."""
    root = make_coco(edit)
    with pytest.raises(DataError, match=r"none trains \(4 with a mask without pixels, 1 crowd regions\)"):
        check_objects(opened(root, masks=True))
    check_objects(opened(root))


def test_small_masks_are_drawn_to_know_whether_they_have_pixels() -> None:
    for ring, expected in [([5, 6, 7, 6, 7, 7, 5, 7], True), ([5.6, 6.6, 5.9, 6.6, 5.9, 6.9], False), (RING, True)]:
        assert has_pixels([ring], 40, 60) == has_pixels([ring] * 300, 40, 60) == expected
        assert bool(coco_mask.decode(coco_mask.frPyObjects([ring], 40, 60)).any()) == expected


@pytest.mark.parametrize(("edit", "message"), USELESS, ids=["area", "ignore", "thin", "crowd"])
def test_a_data_set_without_an_object_to_learn_from(make_coco: MakeCoco, edit: Any, message: str) -> None:
    data = opened(make_coco(edit))
    with pytest.raises(DataError) as raised:
        check_objects(data)
    assert message in str(raised.value)
    report = data_report(data)
    assert report.useless == str(raised.value)
    assert "No problems found" not in report.render()
    assert message in report.render()


def test_a_data_set_of_which_most_is_unused_is_a_warning(make_coco: MakeCoco, caplog: Any) -> None:
    def edit(data: dict[str, Any]) -> None:
        for record in data["annotations"][:2]:
            record["area"] = 0

    with caplog.at_level(logging.WARNING):
        check_objects(opened(make_coco(edit)))
    assert "3 of 5 annotations do not train: 2 without area, 1 crowd regions" in caplog.text
    caplog.clear()
    check_objects(opened(make_coco()))
    assert not caplog.text


# Images


def with_exif(folder: Path, suffix: str, exif: bytes) -> Path:
    path = folder / f"image{suffix}"
    Image.fromarray(np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01"]
)
def test_exif_that_cannot_be_read_is_none(tmp_path: Path, suffix: str, exif: bytes) -> None:
    path = with_exif(tmp_path, suffix, exif)
    assert tuple(read_image(path).shape) == (3, 16, 24)
    assert image_size(path) == (16, 24)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("value", range(10))
def test_sizes_and_pixels_agree_on_the_orientation(tmp_path: Path, suffix: str, value: int) -> None:
    """As PIL turns them; values out of range are none."""
    exif = Image.Exif()
    exif[0x0112] = value
    path = with_exif(tmp_path, suffix, exif.tobytes())
    found = read_image(path)
    assert image_size(path) == tuple(found.shape[1:])
    with Image.open(path) as image:
        expected = image.transpose(TURNS[value]) if value in TURNS else image
        assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(expected.convert("RGB")))


def test_a_format_that_runs_a_program_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(BadImage, match=r"image\.png: not a readable image \(\d+ bytes\); expected JPEG, PNG"):
        read_image(path)


def test_folders_and_pipes_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    os.mkfifo(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        with pytest.raises(BadImage, match=rf"{name}: .*it is a folder, a device or a pipe, not a file"):
            read_image(tmp_path / name)


def test_json_of_any_depth_and_length_ends_in_an_error(tmp_path: Path) -> None:
    for text in ["[" * 100_000, json.dumps({"images": []})[:-1], "9" * 5000]:
        (tmp_path / "instances_train.json").write_text(text)
        with pytest.raises(DataError, match="the annotation file is not JSON"):
            opened(tmp_path)


def test_an_image_of_more_pixels_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a few kilobytes; the limit can be set, and is said."""
    path = tmp_path / "large.png"
    Image.new("1", (20_000, 10_000)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    for limit in (None, "1000"):
        images._max_pixels.cache_clear()
        if limit:
            monkeypatch.setenv("DET_MAX_IMAGE_PIXELS", limit)
        message = f"it has more than {limit or 178956970} pixels; .* set the environment variable DET_MAX_IMAGE_PIXELS"
        with pytest.raises(BadImage, match=message):
            image_size(path)
    images._max_pixels.cache_clear()
    monkeypatch.setenv("DET_MAX_IMAGE_PIXELS", "200000000")
    assert image_size(path) == (10_000, 20_000)
    images._max_pixels.cache_clear()
    monkeypatch.setenv("DET_MAX_IMAGE_PIXELS", "many")
    with pytest.raises(DetError, match="DET_MAX_IMAGE_PIXELS: found 'many', expected a number of pixels"):
        image_size(path)
    images._max_pixels.cache_clear()
