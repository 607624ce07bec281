"""Data sets in YOLO format: what lines mean, where images and lists are found, and every mistake with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from det_core.data.bad_samples import BadSamplesError, NoMasksError
from det_core.data.coco_dataset import CocoDataset
from det_core.data.data_root import LayoutError
from det_core.data.files_config import YoloConfig
from det_core.errors import DataError, DetError

LIST = "names: [cat, dog]\ntrain: images/train\nval: images/val\n"


def picture(path: Path, size: tuple[int, int] = (40, 20)) -> Path:
    """An image of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images a, b (nested) and c of training, of which c has no text file."""
    write(tmp_path / "data.yaml", LIST)
    for name in ("a.png", "sub/b.png", "c.png"):
        picture(tmp_path / "images/train" / name)
    write(tmp_path / "labels/train/a.txt", "1 0.5 0.5 0.25 0.5\n\n0 0.25 0.25 0.5 0.5\n")
    write(tmp_path / "labels/train/sub/b.txt", "0 0.1 0.1 0.6 0.1 0.6 0.9\n")
    return tmp_path


def opened(root: Path, split: str = "train", **more: object) -> CocoDataset:
    data = YoloConfig(split=split).build(str(root), **more)  # type: ignore[arg-type]
    assert isinstance(data, CocoDataset)
    return data


def test_boxes_polygons_and_images_without_objects(root: Path) -> None:
    data = opened(root)
    assert data.classes.names == ("cat", "dog")
    assert data.classes.ids == (0, 1)
    assert [Path(data.file(i)).name for i in range(3)] == ["a.png", "c.png", "b.png"]
    assert data.sizes.tolist() == [[20, 40]] * 3
    sample = data.load(0)
    assert sample.boxes.tolist() == [[15, 5, 25, 15], [0, 0, 20, 10]]
    assert sample.labels.tolist() == [1, 0]
    assert len(data.load(1).boxes) == 0
    assert data.load(2).boxes.tolist() == [[4, 2, 24, 18]]
    assert data.ground_truth()["annotations"][2]["area"] == 160


def test_polygons_are_masks(root: Path) -> None:
    write(root / "labels/train/a.txt", "1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n")
    data = opened(root, masks=True)
    mask = data.load(0).masks
    assert mask is not None
    assert mask.bitmaps().sum() == 200
    assert data.ground_truth()["annotations"][0]["segmentation"] == [[10, 5, 30, 5, 30, 15, 10, 15]]


def test_boxes_alone_have_no_masks(root: Path) -> None:
    write(root / "labels/train/sub/b.txt", "")
    with pytest.raises(NoMasksError, match=r"data\.yaml: masks are required, but no annotation has one"):
        opened(root, masks=True)
    write(root / "labels/train/sub/b.txt", "0 0.1 0.1 0.6 0.1 0.6 0.9\n")
    with pytest.raises(BadSamplesError, match=r"a\.txt: line 1: .*has no segmentation"):
        opened(root, masks=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5", "found 4 values; expected `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...`"),
        ("0 .1 .1 .2 .1 .2", "found 6 values"),
        ("0 0.5 0.5 0.5 x", "found 'x', expected a finite number"),
        ("0 0.5 0.5 0.5 nan", "found 'nan', expected a finite number"),
        ("2 0.5 0.5 0.5 0.5", "unknown class 2; `names` has 0 (cat), 1 (dog)"),
        ("0.5 0.5 0.5 0.5 0.5", "unknown class 0.5"),
        ("0 20 10 10 10", "found 20, expected fractions of the image's width and height, not pixels"),
        ("0 0.9 0.5 0.5 0.5", "reaches outside its image of 40x20 pixels"),
        ("0 0.5 0.5 0 0.5", "has no area"),
    ],
)
def test_mistakes_have_file_and_line(root: Path, line: str, message: str) -> None:
    write(root / "labels/train/a.txt", f"1 0.5 0.5 0.25 0.5\n{line}\n")
    with pytest.raises(BadSamplesError) as raised:
        opened(root)
    (bad,) = raised.value.samples
    assert bad.file == str(root / "labels/train/a.txt")
    assert bad.what.startswith("line 2: ")
    assert message in bad.what
    assert opened(root, on_bad_sample="skip").trained == 2


def test_files_that_cannot_be_read(root: Path) -> None:
    (root / "labels/train/a.txt").write_bytes(b"\xff\xfe\x00")
    (root / "images/train/c.png").write_text("no image")
    with pytest.raises(BadSamplesError) as raised:
        opened(root)
    text = str(raised.value)
    assert "a.txt: the text file of objects cannot be read" in text
    assert "c.png: " in text
    assert "not a readable image" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train\n", "has no `names`; expected a list of class names, or a mapping"),
        ("names: cat\ntrain: a\n", "`names` is 'cat'; expected a list"),
        ("names: {a: cat}\ntrain: a\n", "`names` has 'a': 'cat'; expected a number and a name"),
        ("names: [cat, null]\ntrain: a\n", "`names` has 1: None"),
        ("names: [cat]\nnc: 2\ntrain: a\n", "`nc` is 2, but `names` has 1 classes"),
        ("names: [cat]\ntrain: 3\n", "`train` is 3, expected a folder, a text file, or a list of them"),
        ("names: [cat]\npath: 3\ntrain: a\n", "`path` is 3, expected a folder"),
        ("names: [cat]\ntrain: none\n", "`train` names 'none', which does not exist .paths are relative to "),
        ("names: [cat]\ntrain: data.yaml\n", "`train` names 'data.yaml', which is neither a folder nor a text file"),
        ("names: [cat]\ntrain: labels\n", r"`train` \(labels\) has no images"),
        ("names: [cat]\nval: images\n", "has no `train` images; available: val"),
        ("- cat\n", "found .'cat'.; expected a mapping with `names`, `train` and `val`"),
        ("names: [cat\n", "data.yaml:2:1: not valid YAML"),
    ],
)
def test_mistakes_in_the_list(root: Path, text: str, message: str) -> None:
    write(root / "data.yaml", text)
    with pytest.raises(DetError, match=message):
        opened(root)


def test_no_list_at_all(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"no YOLO data set in it: no data\.yaml, nor another YAML file with `names`"):
        opened(tmp_path)
    with pytest.raises(LayoutError, match=r"no .*x\.yaml; correct the folder, or set `list_file`"):
        YoloConfig(split="train", list_file="x.yaml").build(str(tmp_path))
    write(tmp_path / "list.yaml", "names: [a]\n")
    (tmp_path / "list.yaml").chmod(0o600)
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"bad\.yaml: cannot be read"):
        YoloConfig(split="train", list_file="bad.yaml").build(str(tmp_path))


def test_names_as_a_mapping_and_paths_of_another_machine(root: Path) -> None:
    write(root / "data.yaml", "path: /content/data\nnames: {0: cat, 2: dog}\ntrain: [images/train]\n")
    write(root / "labels/train/a.txt", "2 0.5 0.5 0.25 0.5\n")
    data = opened(root)
    assert data.classes.ids == (0, 2)
    assert data.load(0).labels.tolist() == [1]
    assert data.notes == (
        f"`path` of {root / 'data.yaml'} (/content/data) does not exist; its folder is taken instead",
    )


def test_paths_of_the_list(root: Path) -> None:
    """Text files, a folder beside the list, and Roboflow's paths, which begin with a folder that is not there."""
    write(root / "lists/yolo.yaml", "path: ..\nnames: [cat, dog]\ntrain: lists/train.txt\nval: ../images/train\n")
    write(root / "lists/train.txt", "./../images/train/a.png\nimages/train/c.png\n\n")
    config = YoloConfig(split="train", list_file="lists/yolo.yaml")
    data = config.build(str(root))
    assert [Path(data.file(i)).name for i in range(len(data))] == ["a.png", "c.png"]
    assert data.trained == 2
    write(root / "data.yaml", "names: [cat, dog]\ntrain: ../images/train\n")
    assert len(opened(root)) == 3


def test_label_studio_writes_classes_in_a_text_file(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "cat\ndog\n")
    picture(tmp_path / "images/1a2b3c4d-a.png")
    write(tmp_path / "labels/1a2b3c4d-a.txt", "1 0.5 0.5 0.25 0.5\n")
    data = opened(tmp_path)
    assert data.classes.names == ("cat", "dog")
    assert data.load(0).labels.tolist() == [1]
    assert not YoloConfig(split="val").is_there(str(tmp_path))
    write(tmp_path / "classes.txt", "\n")
    with pytest.raises(DataError, match=r"classes\.txt: the file is empty"):
        opened(tmp_path)


def test_splits(root: Path) -> None:
    assert YoloConfig(split="val").is_there(str(root))
    assert not YoloConfig(split="test").is_there(str(root))
    assert YoloConfig(split="test").is_there(str(root / "none"))  # opening it says what is wrong
    write(root / "data.yaml", "names: [cat, dog]\ntrain: images/train\nvalidation: images/train\n")
    assert len(opened(root, "val")) == 3


def test_labels_beside_images(tmp_path: Path) -> None:
    write(tmp_path / "data.yaml", "names: [cat]\ntrain: photos\n")
    picture(tmp_path / "photos/a.png")
    write(tmp_path / "photos/a.txt", "0 0.5 0.5 1 1\n")
    assert opened(tmp_path).load(0).boxes.tolist() == [[0, 0, 40, 20]]
