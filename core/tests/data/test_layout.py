"""Where annotation files and images are looked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from det_core.data.data_config import CocoConfig
from det_core.data.data_root import LayoutError
from det_core.data.format_search import Files, coco_files, formats_at, labelme_files
from det_core.data.layout import find_layout, has_coco_split


def place(root: Path, *names: str) -> None:
    """Make folders (names that end in /) and empty files."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


@pytest.mark.parametrize(
    ("split", "files", "annotations", "images"),
    [
        (
            "train",
            ["annotations/instances_train2017.json", "train2017/"],
            "annotations/instances_train2017.json",
            "train2017",
        ),
        (
            "val",
            ["annotations/instances_val2017.json", "val2017/", "images/"],
            "annotations/instances_val2017.json",
            "val2017",
        ),
        ("train", ["instances_train.json", "images/"], "instances_train.json", "images"),
        ("train", ["instances_train.json"], "instances_train.json", "."),
        ("val", ["annotations/instances_val.json", "images/val/"], "annotations/instances_val.json", "images/val"),
        ("val", ["annotations/instances_val.json", "val/", "images/"], "annotations/instances_val.json", "val"),
        ("val", ["annotations/instances_val.json", "images/"], "annotations/instances_val.json", "images"),
        ("train", ["train/_annotations.coco.json"], "train/_annotations.coco.json", "train"),
        (
            "val",
            ["valid/_annotations.coco.json", "test/_annotations.coco.json"],
            "valid/_annotations.coco.json",
            "valid",
        ),
        ("val", ["test/_annotations.coco.json", "train/_annotations.coco.json"], "test/_annotations.coco.json", "test"),
        ("val", ["val.json", "images/"], "val.json", "images"),
    ],
)
def test_known_layouts(tmp_path: Path, split: str, files: list[str], annotations: str, images: str) -> None:
    place(tmp_path, *files)
    found = find_layout(tmp_path, split)
    assert found.annotations == tmp_path / annotations
    assert found.images == tmp_path / images


def test_given_paths_are_below_the_root(tmp_path: Path) -> None:
    place(tmp_path, "my/labels.json", "pictures/", "images/", "maps/")
    found = find_layout(tmp_path, "train", "my/labels.json", "pictures", "maps")
    assert found.annotations == tmp_path / "my/labels.json"
    assert found.images == tmp_path / "pictures"
    assert found.semantic == tmp_path / "maps"
    assert find_layout(tmp_path, "train", "my/labels.json").images == tmp_path / "images"
    assert find_layout(tmp_path, "train", str(tmp_path / "my/labels.json"), "pictures").images.name == "pictures"
    assert find_layout("", "train", str(tmp_path / "my/labels.json"), str(tmp_path / "images")).semantic is None


def test_images_beside_a_named_file(tmp_path: Path) -> None:
    place(tmp_path, "my/labels.json")
    assert find_layout(tmp_path, "val", "my/labels.json").images == tmp_path / "my"


def test_a_named_file_of_a_known_layout_keeps_its_images(tmp_path: Path) -> None:
    place(tmp_path, "annotations/instances_val2017.json", "val2017/", "images/")
    assert find_layout(tmp_path, "val", "annotations/instances_val2017.json").images == tmp_path / "val2017"


def test_nothing_found_lists_what_was_tried(tmp_path: Path) -> None:
    with pytest.raises(LayoutError) as raised:
        find_layout(tmp_path, "val")
    text = str(raised.value)
    assert text.startswith(f"{tmp_path}: no annotation file for the val split; looked for\n")
    for name in ("annotations/instances_val2017.json", "valid/_annotations.coco.json", "test.json"):
        assert f"  {name}\n" in text
    assert "set `annotations`" in text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: find_layout("", "train"), "no data folder was given: pass `--data ROOT`"),
        (lambda r: find_layout(r / "none", "train"), "none: does not exist; `--data`"),
        (lambda r: find_layout(r / "train.json", "train"), r"train\.json: is not a folder"),
        (lambda r: find_layout(r, "train", "no.json"), r"no\.json: does not exist; correct `annotations` of the train"),
        (lambda r: find_layout(r, "train", "sub"), r"sub: not a file; correct `annotations`"),
        (lambda r: find_layout(r, "train", None, "no"), r"images folder .*no: does not exist; correct `images`"),
        (lambda r: find_layout(r, "train", None, "train.json"), "not a folder"),
        (
            lambda r: find_layout(r, "train", None, None, "no"),
            "semantic_dir folder .*no: does not exist; correct `semantic_dir` of the data set",
        ),
        (lambda r: find_layout(r, "val"), r"no image folder for it; looked for\n.*val2017"),
    ],
)
def test_messages(tmp_path: Path, call: Callable[[Path], object], message: str) -> None:
    place(tmp_path, "train.json", "sub/", "annotations/instances_val2017.json")
    with pytest.raises(LayoutError, match=message):
        call(tmp_path)


def test_config_opens_what_is_found(make_coco: Callable[..., Path]) -> None:
    root = make_coco()
    data = CocoConfig(split="train", filter_empty=True, min_size=32).build(str(root), masks=True)
    assert len(data) == 2
    assert data.has_masks
    assert data.name == str(root / "instances_train.json")


COCO = '{"images": [], "annotations": [], "categories": []}'
LABELME = '{"version": "5", "shapes": [], "imagePath": "a.png"}'


def write(root: Path, name: str, text: str) -> None:
    place(root, name)
    (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "annotations", "images"),
    [
        (["annotations/instances_default.json", "images/default/a.png"], 0, "images/default"),  # CVAT
        (["annotations/instances_default.json", "images/a.png"], 0, "images"),
        (["annotations/instances_Train.json", "images/Train/a.png"], 0, "images"),
        (["result.json", "images/a.png"], 0, "images"),  # Label Studio
        (["export/labels.json", "export/images/a.png", "images/b.png"], 0, "export/images"),
        (["export/labels.json", "export/a.png"], 0, "export"),
        (["labels/all.json", "images/x/a.png"], 0, "images"),
        (["labels/all.json", "photos/a.png"], 0, "."),
        (["labels/all.json", "images/all/a.png"], 0, "images"),
        (["labels/images/all/a.png", "labels/all.json"], 1, "labels/images/all"),
    ],
)
def test_files_without_splits_are_training_data(
    tmp_path: Path, files: list[str], annotations: int, images: str
) -> None:
    place(tmp_path, *files)
    (tmp_path / files[annotations]).write_text(COCO)
    write(tmp_path, "notes.json", "[1]")
    write(tmp_path, "info.json", '{"images": 3}')
    found = find_layout(tmp_path, "train")
    assert found.annotations == tmp_path / files[annotations]
    assert found.images == tmp_path / images
    assert has_coco_split(tmp_path, "train")
    assert not has_coco_split(tmp_path, "val")
    assert formats_at(tmp_path) == {"coco"}
    with pytest.raises(LayoutError, match=r"no annotation file for the val split; (.*\n)*.*set `data\.val_fraction`"):
        find_layout(tmp_path, "val")


def test_several_files_are_not_guessed_at(tmp_path: Path) -> None:
    for name in ("b.json", "sub/a.json"):
        write(tmp_path, name, COCO)
    with pytest.raises(LayoutError) as raised:
        find_layout(tmp_path, "train")
    assert str(raised.value) == (
        f"{tmp_path}: 2 files look like COCO's: b.json, sub/a.json; name the one to train on, such as "
        "`--set data.train.annotations=b.json` (and `data.val.annotations`)"
    )
    assert has_coco_split(tmp_path, "val")  # not known, so that a setting can name it
    assert has_coco_split(tmp_path / "none", "val")


def test_a_file_of_another_split_is_no_training_data(tmp_path: Path) -> None:
    write(tmp_path, "valid/_annotations.coco.json", COCO)
    with pytest.raises(LayoutError, match="no annotation file for the train split"):
        find_layout(tmp_path, "train")
    assert has_coco_split(tmp_path, "val")
    write(tmp_path, "test/_annotations.coco.json", COCO)
    assert find_layout(tmp_path, "test").annotations == tmp_path / "test/_annotations.coco.json"
    assert find_layout(tmp_path, "val").annotations == tmp_path / "valid/_annotations.coco.json"


def test_formats(tmp_path: Path) -> None:
    write(tmp_path, "sub/a.json", LABELME)
    assert formats_at(tmp_path) == {"labelme"}
    with pytest.raises(LayoutError, match="has the layout of a labelme data set: use `type: labelme`"):
        find_layout(tmp_path, "train")
    write(tmp_path, "my.yaml", "names: [a]\ntrain: images\n")
    assert formats_at(tmp_path) == {"yolo"}
    with pytest.raises(LayoutError, match="has the layout of a YOLO data set: use `type: yolo`"):
        find_layout(tmp_path, "train")
    write(tmp_path, "other.yaml", "names: [a]\ntrain: images\n")  # which of the two is not known
    assert formats_at(tmp_path) == {"labelme"}
    place(tmp_path, "data.yaml")
    assert formats_at(tmp_path) == {"yolo"}
    place(tmp_path, "train.json")
    assert formats_at(tmp_path) == {"yolo", "coco"}


def test_what_a_file_looks_like(tmp_path: Path) -> None:
    texts = {
        "late.json": '{"info": "' + "x" * 5000 + '", ' + COCO[1:],
        "bom.json": "\ufeff" + COCO,
        "late_shapes.json": '{"imageData": "' + "x" * 5000 + '", "imagePath": "a", "shapes": []}',
        "shapes.json": LABELME,
        "list.json": "[" + COCO + "]",
        "empty.json": "",
        "hidden/.cache/a.json": COCO,
    }
    for name, text in texts.items():
        write(tmp_path, name, text)
    assert [path.name for path in coco_files(tmp_path)] == ["bom.json", "late.json"]
    assert [path.name for path in labelme_files(tmp_path)] == ["late_shapes.json", "shapes.json"]


def test_names_in_other_letter_case(tmp_path: Path) -> None:
    place(tmp_path, "Annotations/Instances_TRAIN.json", "Twice.json", "TWICE.json", "images/a.png")
    files = Files(tmp_path)
    assert files.find("annotations/instances_train.json") == tmp_path / "Annotations/Instances_TRAIN.json"
    assert files.find("Twice.json") == tmp_path / "Twice.json"
    assert files.find("twice.json") is None  # which one is not known
    assert files.find("images") is None
    assert files.find("images/a.png/x") is None
