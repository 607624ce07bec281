"""VOC data sets: what is read, and what is said about what cannot be."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image

from det_core.data.bad_samples import BadImage, BadSamplesError
from det_core.data.categories import check_same_categories
from det_core.data.data_config import VOC_CLASSES, FlipConfig, VocConfig
from det_core.data.epoch_order import TrainSampler
from det_core.data.image_content import is_in_part
from det_core.data.images import image_size, read_image
from det_core.data.loader import train_loader
from det_core.data.proposals_file import ImageProposals, write_proposals
from det_core.data.voc_dataset import VocDataset
from det_core.errors import DataError
from det_core.reports.dataset_pictures import draw_dataset
from det_core.reports.dataset_report import data_report

MakeVoc = Callable[..., Path]
BCCD = Path(__file__).with_name("bccd")


def opened(root: Path, **more: Any) -> VocDataset:
    on_bad_sample = more.pop("on_bad_sample", "error")
    data = VocConfig(**{"split": "train", **more}).build(str(root), on_bad_sample=on_bad_sample)
    assert isinstance(data, VocDataset)
    return data


def annotations(root: Path, name: str = "000005") -> Path:
    return root / "Annotations" / f"{name}.xml"


def spoil(root: Path, old: str, new: str, name: str = "000005") -> Path:
    """Change an annotation file."""
    path = annotations(root, name)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return root


# What is read


def test_the_twenty_classes_are_in_alphabetical_order() -> None:
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)
    assert VocConfig(split="train").classes == VOC_CLASSES


def test_sample(make_voc: MakeVoc) -> None:
    root = make_voc()
    data = opened(root)
    assert data.name == f"{root} (VOC: trainval)"
    assert data.classes.names == VOC_CLASSES
    assert data.classes.ids == tuple(range(1, 21))
    assert data.image_ids.tolist() == [1, 2, 3]
    assert data.sizes.tolist() == [[40, 60], [50, 30], [48, 64]]
    sample = data.load(0)
    assert sample.size == (40, 60)
    assert sample.boxes.dtype == torch.float32
    assert sample.labels.tolist() == [VOC_CLASSES.index("dog"), VOC_CLASSES.index("cat")]
    assert sample.labels.dtype == torch.int64
    assert sample.ignored.tolist() == [False, True]
    assert sample.masks is sample.semantic is sample.proposals is None
    assert sample.image_id == 1
    assert sample.file == str(root / "JPEGImages/000005.jpg")
    assert torch.equal(sample.image, read_image(sample.file))
    assert len(data.load(2).boxes) == 0
    assert data.load(2).boxes.shape == (0, 4)
    assert data.annotation_file(1) == annotations(root, "000007")


def test_corners_are_pixels_from_one_and_both_belong_to_the_box(make_voc: MakeVoc) -> None:
    """6..25 are 20 columns, the first of them the sixth: 5 to 25 in continuous coordinates."""
    root = make_voc()
    assert opened(root).load(0).boxes.tolist() == [[5, 6, 25, 16], [30, 20, 60, 40]]
    assert opened(root).load(1).boxes.tolist() == [[0, 0, 30, 50]]
    spoil(root, "<xmin>6</xmin>\n<ymin>7</ymin>\n<xmax>25</xmax>", "<xmin>6</xmin>\n<ymin>7</ymin>\n<xmax>6</xmax>")
    assert opened(root).load(0).boxes[0].tolist() == [5, 6, 6, 16]  # a box may be one pixel wide


def test_exact_corners_are_taken_as_they_are(make_voc: MakeVoc) -> None:
    root = spoil(make_voc(), "<xmin>6<", "<xmin>5.25<")
    assert opened(root, corners="exact").load(0).boxes.tolist() == [[5.25, 7, 25, 16], [31, 21, 60, 40]]
    assert opened(root).load(0).boxes[0].tolist() == [4.25, 6, 25, 16]  # fractions are kept, too


@pytest.mark.parametrize(
    ("change", "box"),
    [
        (("<xmin>6<", "<xmin>0<"), [0, 6, 25, 16]),  # counted from 0
        (("<xmax>25<", "<xmax>61<"), [5, 6, 60, 16]),
        (("<ymax>16<", "<ymax> 40.5 <"), [5, 6, 25, 40]),
        (("<ymin>7<", "<ymin>.5e0<"), [5, 0, 25, 16]),
    ],
)
def test_a_pixel_outside_is_cut_off(make_voc: MakeVoc, change: tuple[str, str], box: list[float]) -> None:
    assert opened(spoil(make_voc(), *change)).load(0).boxes[0].tolist() == box


def test_difficult_objects_are_ignored_or_kept(make_voc: MakeVoc) -> None:
    root = make_voc()
    ignoring, keeping = opened(root), opened(root, difficult="keep")
    assert ignoring.load(0).targets().objects().labels.tolist() == [VOC_CLASSES.index("dog")]
    assert keeping.load(0).ignored.tolist() == [False, False]
    flags = [
        [(a["iscrowd"], a["difficult"], a["truncated"]) for a in d.ground_truth()["annotations"]]
        for d in (ignoring, keeping)
    ]
    assert flags == [[(0, 0, 0), (1, 1, 0), (0, 0, 1)], [(0, 0, 0), (0, 1, 0), (0, 0, 1)]]


def test_ground_truth(make_voc: MakeVoc) -> None:
    data = opened(make_voc(), classes=("dog", "cat"))
    truth = data.ground_truth()
    json.dumps(truth)
    assert truth["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    assert truth["images"][0] == {"id": 1, "file_name": "000005.jpg", "height": 40, "width": 60}
    expected = {"bbox": [5, 6, 20, 10], "area": 200, "iscrowd": 0, "difficult": 0, "truncated": 0}
    assert truth["annotations"][0] == {"id": 1, "image_id": 1, "category_id": 1, **expected}
    assert [a["id"] for a in truth["annotations"]] == [1, 2, 3]
    assert data.ground_truth()["annotations"][0] is not truth["annotations"][0]


def test_annotations_are_flat_arrays(make_voc: MakeVoc) -> None:
    data = opened(make_voc())
    table = data.table
    columns = [table.offsets, table.boxes, table.labels, table.difficult, table.truncated]
    for array in [*columns, data._names.text, data._names.offsets, data._rows, data.sizes, data.image_ids]:
        assert isinstance(array, np.ndarray)
        assert array.dtype != np.object_
    assert table.offsets.tolist() == [0, 2, 3, 3]
    data.load(0).boxes.zero_()
    data.load(0).labels.zero_()
    assert data.load(0).boxes[0].tolist() == [5, 6, 25, 16]
    assert data.load(0).labels.tolist() != [0, 0]


def test_classes_are_found_in_all_annotations(make_voc: MakeVoc) -> None:
    root = make_voc()
    train, val = opened(root, classes=None), opened(root, split="val", classes=None)
    assert train.classes.names == val.classes.names == ("cat", "dog")  # though no cat is in the test set
    assert train.load(0).labels.tolist() == [1, 0]
    check_same_categories(train, val)
    annotations(root, "other").write_text("<annotation>no")  # what is in no set, and cannot be read, does no harm
    assert opened(root, classes=None).classes.names == ("cat", "dog")


def test_found_classes_are_told(make_voc: MakeVoc, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="det_core"):
        opened(make_voc(), classes=None)
    assert "2 classes in the annotations: cat, dog" in caplog.text


def test_no_class_at_all(make_voc: MakeVoc) -> None:
    root = make_voc()
    for name in ("000005", "000007"):
        path = annotations(root, name)
        path.write_text(re.sub("<object>.*</object>", "", path.read_text(), flags=re.DOTALL))
    with pytest.raises(DataError, match="the annotations contain no class"):
        opened(root, classes=None)


def test_classes_that_differ_between_the_sets(make_voc: MakeVoc) -> None:
    root = make_voc()
    with pytest.raises(DataError, match="in VOC format give both data sets the same `classes`"):
        check_same_categories(opened(root, classes=None), opened(root, classes=("cat", "dog", "elk")))


def test_parts_of_objects_are_passed_over(make_voc: MakeVoc) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
    assert opened(spoil(make_voc(), "</object>", part), classes=None).classes.names == ("cat", "dog")


def test_images_of_other_kinds(make_voc: MakeVoc) -> None:
    root = make_voc()
    image = root / "JPEGImages/000005.jpg"
    Image.open(image).save(image.with_suffix(".png"))
    assert opened(root).file(0) == str(image)
    image.unlink()
    data = opened(root)
    assert data.file(0) == str(image.with_suffix(".png"))
    assert data.annotation_file(0) == annotations(root)
    assert data.load(0).size == (40, 60)


def test_ids_with_dots_spaces_and_folders(make_voc: MakeVoc) -> None:
    root = make_voc()
    names = ["a.b", "photo 1", "deep/c.d.e"]
    for folder, suffix in (("Annotations", ".xml"), ("JPEGImages", ".jpg")):
        (root / folder / "deep").mkdir()
        for name in names:
            (root / folder / f"{name}{suffix}").write_bytes((root / folder / f"000005{suffix}").read_bytes())
    (root / "ImageSets/Main/trainval.txt").write_text("\n".join(names))
    data = opened(root)
    assert [data.annotation_file(i) for i in range(3)] == [annotations(root, name) for name in names]
    assert [data.load(i).labels.shape[0] for i in range(3)] == [2, 2, 2]


def test_a_set_file_of_one_class_and_a_byte_order_mark(make_voc: MakeVoc) -> None:
    root = make_voc()
    (root / "ImageSets/Main/dog_train.txt").write_bytes("﻿000005  1\r\n000007 -1\r\n\r\n000009  0\r\n".encode())
    assert len(opened(root, sets=("dog_train",))) == 3


def test_filters(make_voc: MakeVoc) -> None:
    root = make_voc()
    empty = opened(root, filter_empty=True)
    assert (empty.image_ids.tolist(), empty.filtered) == ([1, 2], 1)
    small = opened(root, min_size=35)
    assert (small.image_ids.tolist(), small.filtered) == ([1, 3], 1)
    assert small.load(1).image_id == 3
    with pytest.raises(DataError, match="no image is left of 3: 0 bad samples, filter_empty=False, min_size=99"):
        opened(root, min_size=99)


def test_masks_and_maps_are_refused(make_voc: MakeVoc) -> None:
    root = str(make_voc())
    with pytest.raises(DataError, match=r"instance masks are required, but data in VOC format have only boxes"):
        VocConfig(split="train").build(root, masks=True)
    with pytest.raises(DataError, match=r"semantic maps are required.*`type: coco`"):
        VocConfig(split="train").build(root, semantic=True)


def test_proposals(make_voc: MakeVoc) -> None:
    root = make_voc()
    plain = opened(root)
    found = [
        ImageProposals(
            image_id=int(plain.image_ids[i]),
            file=plain.file(i),
            size=(int(plain.sizes[i][0]), int(plain.sizes[i][1])),
            boxes=torch.tensor([[0.0, 0, 9, 9 + i], [1, 1, 5, 5]]),
            scores=torch.tensor([0.9, 0.5]),
        )
        for i in range(3)
    ]
    write_proposals(root / "rpn.safetensors", found, {})
    data = opened(root, proposals="rpn.safetensors", max_proposals=1)
    assert data.load(1).proposals.tolist() == [[0, 0, 9, 10]]  # type: ignore[union-attr]
    write_proposals(root / "rpn.safetensors", found[:2], {})
    with pytest.raises(DataError, match="has no proposals for 1 of 3 images"):
        opened(root, proposals="rpn.safetensors")


def test_a_devkit_of_two_years(make_voc: MakeVoc, tmp_path: Path) -> None:
    devkit = tmp_path / "VOCdevkit"
    devkit.mkdir()
    make_voc("one").rename(devkit / "VOC2007")
    make_voc("two").rename(devkit / "VOC2012")
    (devkit / "VOC2012/ImageSets/Main/test.txt").unlink()
    sets = ("VOC2007/trainval", "VOC2012/trainval")
    data = opened(tmp_path, sets=sets)
    assert data.name == f"{tmp_path} (VOC: VOC2007/trainval + VOC2012/trainval)"
    assert data.image_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert data.file(3) == str(devkit / "VOC2012/JPEGImages/000005.jpg")
    assert opened(devkit).name.endswith("(VOC: VOC2007/trainval + VOC2012/trainval)")
    assert opened(devkit, split="val").name.endswith("(VOC: VOC2007/test)")
    assert len(opened(devkit / "VOC2007", sets=("VOC2007/test",))) == 1


# The real thing


def test_bccd_is_read_as_another_reader_reads_it() -> None:
    train, val = opened(BCCD, classes=None), opened(BCCD, split="val", classes=None)
    assert train.classes.names == ("Platelets", "RBC", "WBC")
    assert [len(train), len(val)] == [2, 2]
    assert int(train.table.truncated.sum()) == 4
    assert not train.table.difficult.any()
    for data in (train, val):
        for index in range(2):
            sample = data.load(index)
            root = ElementTree.parse(data.annotation_file(index)).getroot()  # the test's own file
            expected = []
            for found in root.iter("object"):
                x1, y1, x2, y2 = (int(found.findtext(f"bndbox/{c}", "")) for c in ("xmin", "ymin", "xmax", "ymax"))
                expected.append((found.findtext("name"), [x1 - 1, y1 - 1, x2, y2]))
            names = [data.classes.names[label] for label in sample.labels]
            assert list(zip(names, sample.boxes.tolist(), strict=True)) == expected
            assert sample.size == (480, 640)


def test_report_and_pictures(tmp_path: Path, make_voc: MakeVoc) -> None:
    data = opened(BCCD, classes=None)
    report = data_report(data, other=opened(BCCD, split="val", classes=None), read_images=True)
    assert (report.images, report.objects, report.crowd, report.mismatch) == (2, 23, 0, ())
    text = report.render()
    assert "23 objects: 11.5 per image" in text
    assert "and 0 difficult objects" in text
    assert "No problems found." in text
    assert len(draw_dataset(data, tmp_path / "out", 1)) == 1
    other = data_report(opened(make_voc()))
    assert (other.objects, other.crowd, other.ignored_kind) == (2, 1, "difficult objects")


def test_a_repeated_image_is_augmented_afresh(make_voc: MakeVoc) -> None:
    """An epoch goes over the data `repeat` times, each time with random choices of its own."""
    data = opened(make_voc())
    sampler = TrainSampler(sizes=data.sizes, images_per_rank=4, repeat=16, group_by_aspect=False)
    assert sampler.steps_per_epoch == 12
    images = [i for step in train_loader(data, [FlipConfig().build()], sampler, epoch=0) for i in step]
    assert sorted((i.info.key.index, i.info.key.repeat) for i in images) == [
        (i, r) for i in range(3) for r in range(16)
    ]
    lefts = [float(i.targets.boxes[0, 0]) for i in images if i.info.key.index == 0]
    assert set(lefts) == {5.0, 35.0}  # as it is, and mirrored
    assert 3 <= lefts.count(5.0) <= 13


# What is wrong

OBJECT = "line 6: object 1 ('dog'): "
BAD: list[tuple[tuple[str, str], str]] = [
    (("<annotation>", "<notes>"), "line 1: found <notes>, expected <annotation>: not a VOC annotation"),
    (("</name>", "</nam>"), "line 7: not XML: mismatched tag"),
    (("</annotation>", ""), "not XML: no element found"),
    (("<name>dog", "<name>&dog;"), "line 7: not XML: undefined entity"),
    (("<annotation>", '<?xml version="1.0" encoding="klingon"?><annotation>'), "line 1: not XML"),
    (("<size>", "<sizes>"), "line 5: not XML: mismatched tag"),
    (("<width>60</width>\n", ""), "line 2: `size` has no `width` (the image is 60x40 pixels)"),
    (
        ("60</width>", "0</width>"),
        "line 3: `width` is '0', expected a whole number of pixels from 1 to 1048576 (the image",
    ),
    (("40</height>", "40.5</height>"), "line 4: `height` is '40.5', expected a whole number"),
    (("40</height>", "</height>"), "line 4: `height` is '', expected a whole number"),
    (
        ("60</width>", "61</width>"),
        "line 2: the image is 60x40 pixels (with its EXIF orientation), but `size` says 61x40; correct the sizes",
    ),
    (
        ("<width>60</width>", "<width>60</width>\n<width>60</width>"),
        "line 4: `size/width` is given twice (first on line 3) (the image is 60x40 pixels)",
    ),
    (("<name>dog</name>\n", ""), "line 6: object 1: has no `name` (its class)"),
    (("<name>dog", "<name> "), "line 7: object 1: has no `name` (its class)"),
    (
        ("<name>dog", "<name>dgo"),
        "line 6: unknown class 'dgo', allowed: aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, "
        'diningtable, dog, horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor; did you mean "dog"? '
        "(`classes: null` of the data set uses all classes in its annotations)",
    ),
    (
        ("</name>", "</name>\n<name>cat</name>"),
        OBJECT.replace("line 6", "line 8") + "`name` is given twice (first on line 7)",
    ),
    (
        ("</name>", "</name>\n<difficult>yes</difficult>"),
        OBJECT.replace("line 6", "line 8") + "`difficult` is 'yes', expected 0 or 1",
    ),
    (("<xmin>6</xmin>\n", ""), "line 8: object 1 ('dog'): `bndbox` has no `xmin`"),
    (("<xmin>6<", "<xmin>six<"), "line 9: object 1 ('dog'): `xmin` is 'six', expected a finite number"),
    (("<xmax>25<", "<xmax>nan<"), "line 11: object 1 ('dog'): `xmax` is 'nan', expected a finite number"),
    (("<xmax>25<", "<xmax>1e999<"), "line 11: object 1 ('dog'): `xmax` is '1e999', expected a finite number"),
    (("<xmax>25<", "<xmax>2_5<"), "line 11: object 1 ('dog'): `xmax` is '2_5', expected a finite number"),
    (
        ("<xmax>25<", "<xmax>5<"),
        "line 8: object 1 ('dog'): box (xmin 6, ymin 7, xmax 5, ymax 16) is inverted: xmax and ymax must be the",
    ),
    (
        ("<xmax>25<", "<xmax>62<"),
        "line 8: object 1 ('dog'): box (xmin 6, ymin 7, xmax 62, ymax 16) reaches outside its image of 60x40 pixels",
    ),
    (("<ymin>7<", "<ymin>-1<"), "(xmin 6, ymin -1, xmax 25, ymax 16) reaches outside its image of 60x40 pixels"),
    (("<xmin>6<", "<xmin>-90<"), "(xmin -90, ymin 7, xmax 25, ymax 16) reaches outside its image of 60x40 pixels"),
    (
        ("<xmin>6</xmin>\n<ymin>7</ymin>\n<xmax>25<", "<xmin>61</xmin>\n<ymin>7</ymin>\n<xmax>61<"),
        "(xmin 61, ymin 7, xmax 61, ymax 16) reaches outside its image of 60x40 pixels",  # nothing of it is within
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_annotations_are_reported_or_skipped(make_voc: MakeVoc, change: tuple[str, str], message: str) -> None:
    root = spoil(make_voc(), *change)
    with pytest.raises(BadSamplesError) as raised:
        opened(root)
    assert f"{annotations(root)}: " in str(raised.value)
    assert message in str(raised.value)
    assert "1 bad sample\n" in str(raised.value)
    assert "--on-bad-sample skip" in str(raised.value)
    data = opened(root, on_bad_sample="skip")
    assert data.skipped == list(raised.value.samples)
    assert [sample.id for sample in data.skipped] == [1]
    for index in range(len(data)):
        assert len(data.load(index).boxes) == len(data.load(index).labels)


def test_no_size(make_voc: MakeVoc) -> None:
    root = make_voc()
    path = annotations(root)
    path.write_text(re.sub("<size>.*</size>", "", path.read_text(), flags=re.DOTALL))
    with pytest.raises(BadSamplesError, match=r"000005\.xml: line 1: has no `size` of the image; expected `width` and"):
        opened(root)
    assert opened(root, on_bad_sample="skip").image_ids.tolist() == [2, 3]


def test_no_box_and_no_area(make_voc: MakeVoc) -> None:
    root = make_voc()
    path = annotations(root)
    path.write_text(re.sub("<bndbox>.*?</bndbox>", "", path.read_text(), count=1, flags=re.DOTALL))
    spoil(root, "<xmax>30<", "<xmax>1<", "000007")
    with pytest.raises(BadSamplesError) as raised:
        opened(root, corners="exact")
    assert f"{path}: line 6: object 1 ('dog'): has no `bndbox`" in str(raised.value)
    assert "000007.xml: line 10: object 1 ('dog'): box (xmin 1, ymin 1, xmax 1, ymax 50) has no area" in str(
        raised.value
    )


LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE lolz [
<!ENTITY lol "lol">
<!ENTITY lol2 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;">
<!ENTITY lol3 "&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;">
]>
<annotation><object><name>&lol3;</name></object></annotation>
"""
OUTSIDE = """<?xml version="1.0"?>
<!DOCTYPE annotation [<!ENTITY secret SYSTEM "file:///etc/hostname">]>
<annotation><object><name>&secret;</name></object></annotation>
"""
PARAMETER = """<!DOCTYPE annotation SYSTEM "http://127.0.0.1:9/evil.dtd">
<annotation></annotation>
"""


@pytest.mark.parametrize(("text", "line"), [(LAUGHS, 2), (OUTSIDE, 2), (PARAMETER, 1)])
def test_entities_are_not_even_looked_at(make_voc: MakeVoc, text: str, line: int) -> None:
    root = make_voc()
    annotations(root).write_text(text)
    with pytest.raises(BadSamplesError) as raised:
        opened(root)
    message = f"{annotations(root)}: line {line}: has a DOCTYPE, which can define entities or refer to other files, so"
    assert message in str(raised.value)
    assert "lollol" not in str(raised.value)
    assert opened(root, on_bad_sample="skip", classes=None).classes.names == ("dog",)


@pytest.mark.parametrize("content", [b"", b" \n "])
def test_an_empty_annotation_file(make_voc: MakeVoc, content: bytes) -> None:
    root = make_voc()
    annotations(root).write_bytes(content)
    with pytest.raises(BadSamplesError, match=r"000005\.xml: the annotation file is empty"):
        opened(root)


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 a JPEG", b"{}", b"\x00" * 50])
def test_not_xml_at_all(make_voc: MakeVoc, content: bytes) -> None:
    root = make_voc()
    annotations(root).write_bytes(content)
    with pytest.raises(BadSamplesError, match=r"000005\.xml: line 1: not XML"):
        opened(root)


def test_an_annotation_that_is_no_file(make_voc: MakeVoc) -> None:
    root = make_voc()
    annotations(root).unlink()
    annotations(root).mkdir()
    with pytest.raises(BadSamplesError, match=r"000005\.xml: the annotation file cannot be read: Is a directory"):
        opened(root)


def test_missing_files(make_voc: MakeVoc) -> None:
    root = make_voc()
    annotations(root).unlink()
    (root / "JPEGImages/000007.jpg").unlink()
    listing = root / "ImageSets/Main/trainval.txt"
    with pytest.raises(BadSamplesError) as raised:
        opened(root)
    assert [str(sample) for sample in raised.value.samples] == [
        f"{annotations(root)}: the annotation file does not exist; line 1 of {listing} lists it",
        f"{root}/JPEGImages/000007.jpg: the image file does not exist (nor one with .jpeg, .png, .jpg, .bmp, .tif, "
        f".tiff, .webp); line 2 of {listing} lists it",
    ]
    assert opened(root, on_bad_sample="skip").image_ids.tolist() == [3]


def test_an_image_that_is_none(make_voc: MakeVoc) -> None:
    root = make_voc()
    (root / "JPEGImages/000005.jpg").write_bytes(b"no image")
    with pytest.raises(BadSamplesError, match=r"000005\.jpg: not a readable image \(8 bytes\)"):
        opened(root)


def test_all_problems_at_once(make_voc: MakeVoc) -> None:
    root = spoil(spoil(make_voc(), "<name>dog", "<name>elk"), "<xmax>60<", "<xmax>99<")
    spoil(root, "60</width>", "59</width>")
    (root / "JPEGImages/000009.jpg").unlink()
    with pytest.raises(BadSamplesError, match="4 bad samples") as raised:
        opened(root)
    lines = str(raised.value).splitlines()
    assert [line.split(": ")[1][:7] for line in lines[1:5]] == ["line 2", "line 18", "line 6", "the ima"]


def test_a_truncated_image_shows_when_it_is_read(make_voc: MakeVoc) -> None:
    root = make_voc()
    path = root / "JPEGImages/000005.jpg"
    path.write_bytes(path.read_bytes()[:-800])
    data = opened(root)
    with pytest.raises(
        BadImage, match=r"000005\.jpg: image id 1: the image cannot be decoded: image file is truncated"
    ):
        data.load(0)


def test_an_image_that_changes_its_size_later(make_voc: MakeVoc) -> None:
    root = make_voc()
    data = opened(root)
    Image.new("RGB", (50, 40)).save(root / "JPEGImages/000005.jpg")
    with pytest.raises(BadImage, match=r"is 50x40 pixels .* but .*Annotations/000005\.xml says 60x40"):
        data.load(0)


def test_set_files(make_voc: MakeVoc) -> None:
    root = make_voc()
    listing = root / "ImageSets/Main/trainval.txt"
    listing.write_text("000005\n\n000007\n000005\n")
    with pytest.raises(BadSamplesError) as raised:
        opened(root)
    message = f"{listing}: line 4: image '000005' is given twice (first on line 1)"
    assert [str(sample) for sample in raised.value.samples] == [message]
    assert opened(root, on_bad_sample="skip").image_ids.tolist() == [1, 2]
    listing.write_text("\n \n")
    with pytest.raises(DataError, match=r"trainval\.txt: the image set is empty; expected the name of an image"):
        opened(root, sets=("trainval",))
    listing.write_bytes(b"\xff\xfe0\x00")
    with pytest.raises(DataError, match=r"trainval\.txt: the image set is not text in UTF-8"):
        opened(root, sets=("trainval",))


def test_an_image_in_two_sets(make_voc: MakeVoc) -> None:
    root = make_voc()
    with pytest.raises(
        BadSamplesError, match=r"test\.txt: line 1: image '000007' is given twice \(first on line 2 of "
    ):
        opened(root, sets=("trainval", "test"))


def test_sizes_are_those_of_the_turned_image(make_voc: MakeVoc) -> None:
    """A camera held upright: 60x40 pixels stored, 40x60 shown, which is what annotators saw."""
    root = make_voc()
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix in (".jpg", ".png"):
        path = root / f"turned{suffix}"
        Image.new("RGB", (60, 40)).save(path, exif=exif)
        assert image_size(path) == tuple(read_image(path).shape[1:]) == (60, 40)
        Image.new("RGB", (60, 40)).save(path)
        assert image_size(path) == tuple(read_image(path).shape[1:]) == (40, 60)


@given(st.binary(max_size=200) | st.text(alphabet="<>&;!/annotation objectsize1", max_size=200).map(str.encode))
def test_whatever_is_in_the_file_gives_an_error_with_its_name(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    root = tmp_path_factory.getbasetemp() / "voc-fuzz"
    if not root.exists():
        from_bccd(root)
    (root / "Annotations/a.xml").write_bytes(data)
    with pytest.raises(BadSamplesError, match=r"a\.xml: "):
        opened(root)


def from_bccd(root: Path) -> None:
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / part).mkdir(parents=True)
    for name in ("trainval", "test"):
        (root / f"ImageSets/Main/{name}.txt").write_text("a\n")
    (root / "JPEGImages/a.jpg").write_bytes((BCCD / "JPEGImages/BloodImage_00004.jpg").read_bytes())
    (root / "Annotations/a.xml").write_bytes(b"")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"split": "all"}, "split"),
        ({"split": "val", "sets": ()}, "sets: found 0 values, expected at least 1"),
        ({"split": "val", "classes": ("a", "a")}, "classes: found 'a' twice, expected each value once"),
        ({"split": "val", "difficult": "drop"}, "difficult"),
        ({"split": "val", "corners": "odd"}, "corners"),
        ({"split": "val", "min_size": -1}, "min_size"),
        ({"split": "val", "max_proposals": 0}, "max_proposals"),
    ],
)
def test_values_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VocConfig(**values)


def test_boxes_are_repaired_and_counted(make_voc: MakeVoc) -> None:
    root = spoil(make_voc(), "<xmax>25<", "<xmax>70<")
    data = opened(root, on_bad_sample="repair")
    assert data.table.boxes[0].tolist() == [5, 6, 60, 16]
    assert data.notes == (f"{data.name}: repaired: 1 annotation clipped to the image, 0 without area left out",)
    spoil(root, "<xmin>6<", "<xmin>69<")
    again = opened(root, on_bad_sample="repair")
    assert len(again.table.boxes) == len(data.table.boxes) - 1
    assert again.notes == (f"{data.name}: repaired: 0 annotations clipped to the image, 1 without area left out",)
    assert again.skipped == []
    spoil(root, "<ymin>7<", "<ymin>x<")
    assert len(opened(root, on_bad_sample="repair").skipped) == 1  # what cannot be repaired is skipped


def test_a_part_is_chosen_by_content(make_voc: MakeVoc) -> None:
    root = make_voc()
    whole = opened(root)
    parts = [opened(root, part=part) for part in ((0, 0.9), (0.9, 1)) if _has_images(root, part)]
    assert sum(map(len, parts)) == len(whole)
    assert {int(i) for part in parts for i in part.image_ids} == set(whole.image_ids.tolist())
    assert all(part.filtered == 0 for part in parts)


def _has_images(root: Path, part: tuple[float, float]) -> bool:
    whole = opened(root)
    return any(is_in_part(whole.file(index), part) for index in range(len(whole)))


def test_classes_are_renamed_and_others_dropped(make_voc: MakeVoc) -> None:
    root = make_voc()
    whole = opened(root, classes=None)
    assert set(whole.classes.names) == {"cat", "dog"}
    data = opened(root, classes=("dog=pet",), other_classes="drop")
    assert data.classes.names == ("pet",)
    dogs = int((whole.table.labels == whole.classes.names.index("dog")).sum())
    assert len(data.table.labels) == dogs
    assert data.dropped["of other classes"] == len(whole.table.labels) - dogs
    merged = opened(root, classes=("dog=pet", "cat=pet"))
    assert merged.classes.names == ("pet",)
    assert len(merged.table.labels) == len(whole.table.labels)
    with pytest.raises(
        DataError, match=r'Annotations: `classes`: no class \'dgo\'; did you mean "dog"\?; the data set has'
    ):
        opened(root, classes=("dgo",), other_classes="drop")
    with pytest.raises(BadSamplesError, match="unknown class 'cat', allowed: dog"):
        opened(root, classes=("dog",))
