"""Where VOC image sets are looked for, and what is said where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from det_core.data.data_config import CocoConfig, VocConfig
from det_core.data.data_root import LayoutError
from det_core.data.format_search import formats_at
from det_core.data.layout import find_layout
from det_core.data.voc_layout import find_voc_sets, has_voc_split

EMPTY = "<annotation></annotation>"


def place(folder: Path, annotated: str = "a b", images: bool = True, **sets: str) -> Path:
    """A VOC folder with annotation files and sets (ids by name)."""
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets/Main").mkdir(parents=True)
    if images:
        (folder / "JPEGImages").mkdir()
    for name in annotated.split():
        (folder / "Annotations" / f"{name}.xml").write_text(EMPTY)
    for name, ids in sets.items():
        (folder / "ImageSets/Main" / f"{name}.txt").write_text("\n".join(ids.split()))
    return folder


def names(root: Path, sets: tuple[str, ...] | None = None) -> tuple[list[str], list[str]]:
    train, val = ([s.name for s in find_voc_sets(root, split, sets)] for split in ("train", "val"))
    return train, val


@pytest.mark.parametrize(
    ("sets", "train", "val"),
    [
        ({"trainval": "a", "test": "b", "train": "a", "val": "a"}, "trainval", "test"),
        ({"trainval": "a b", "train": "a", "val": "b"}, "train", "val"),
        ({"train": "a", "valid": "b", "test": "b"}, "train", "valid"),
        ({"train": "a", "test": "b"}, "train", "test"),
        ({"trainval": "a b", "test": "x y", "train": "a", "val": "b"}, "train", "val"),  # no annotations to test on
    ],
)
def test_usual_sets_of_a_flat_folder(tmp_path: Path, sets: dict[str, str], train: str, val: str) -> None:
    assert names(place(tmp_path / "data", **sets)) == ([train], [val])


def test_files_of_a_set(tmp_path: Path) -> None:
    (found,) = find_voc_sets(place(tmp_path / "data", trainval="a", test="b"), "val")
    assert found.ids == tmp_path / "data/ImageSets/Main/test.txt"
    assert found.annotations == tmp_path / "data/Annotations"
    assert found.images == tmp_path / "data/JPEGImages"


@pytest.mark.parametrize("base", ["", "VOCdevkit/"])
def test_usual_sets_of_07_and_12(tmp_path: Path, base: str) -> None:
    place(tmp_path / f"{base}VOC2007", trainval="a", test="b", train="a", val="a")
    place(tmp_path / f"{base}VOC2012", trainval="a b", test="x", train="a", val="b")
    place(tmp_path / f"{base}VOC2010", trainval="a b", train="a", val="b")  # is within 2012
    assert names(tmp_path) == (["VOC2007/trainval", "VOC2012/trainval"], ["VOC2007/test"])
    assert names(tmp_path, ("VOC2010/val",)) == (["VOC2010/val"], ["VOC2010/val"])


def test_one_year_without_a_test_set(tmp_path: Path) -> None:
    place(tmp_path / "VOC2012", trainval="a b", test="x", train="a", val="b")
    assert names(tmp_path) == (["VOC2012/train"], ["VOC2012/val"])
    assert names(tmp_path, ("trainval",))[0] == ["VOC2012/trainval"]  # there is one folder only


def test_a_root_that_is_the_folder_itself(tmp_path: Path) -> None:
    root = place(tmp_path / "VOC2007", trainval="a", test="b")
    assert names(root, ("VOC2007/test",)) == (["test"], ["test"])
    assert names(root)[0] == ["trainval"]


def fails(root: Path, sets: tuple[str, ...] | None = None) -> str:
    with pytest.raises(LayoutError) as raised:
        find_voc_sets(root, "train", sets)
    return str(raised.value)


def test_no_voc_data(tmp_path: Path) -> None:
    assert fails(tmp_path) == (
        f"{tmp_path}: no VOC data set in it: neither it, nor a folder in it or in its VOCdevkit, has Annotations, "
        "ImageSets/Main and JPEGImages"
    )
    (tmp_path / "instances_val.json").write_text("")
    assert fails(tmp_path).endswith("; it has annotations in COCO format: use `type: coco`")
    with pytest.raises(LayoutError, match="no data folder was given: pass `--data ROOT`"):
        find_voc_sets("", "train")
    with pytest.raises(LayoutError, match="none: does not exist"):
        find_voc_sets(tmp_path / "none", "train")


def test_a_coco_reader_says_that_it_is_voc(tmp_path: Path) -> None:
    place(tmp_path / "data", trainval="a", test="b")
    with pytest.raises(LayoutError, match="the folder has the layout of a VOC data set: use `type: voc`"):
        find_layout(tmp_path / "data", "train")
    with pytest.raises(LayoutError) as raised:
        find_layout(tmp_path / "data/Annotations", "train")
    assert "VOC" not in str(raised.value)


def test_a_set_that_is_not_there(tmp_path: Path) -> None:
    root = place(tmp_path / "data", trainval="a", test="b", dog_train="a")
    assert fails(root, ("trainvl",)) == (
        f"{root}: no image set 'trainvl' for the train split; did you mean \"trainval\"?; available: test, trainval, "
        "dog_train; correct `sets` of the data set, or remove it (null) to use the usual ones"
    )
    assert "no image set 'VOC2007/test' for the train split" in fails(root, ("VOC2007/test",))
    place(tmp_path / "VOC2012", **{f"set{i}": "a" for i in range(9)})
    assert ", ...; correct `sets`" in fails(tmp_path, ("test",))


def test_no_pair_of_sets(tmp_path: Path) -> None:
    root = place(tmp_path / "data", aeroplane="a")
    assert fails(root) == (
        f"{root}: no image sets with annotations both to train and to evaluate on; looked for trainval with test, "
        "train with val, train with valid, train with validation, train with test; available: aeroplane; set `sets` of "
        "each data set"
    )


def test_several_folders_of_unknown_names(tmp_path: Path) -> None:
    for name in ("mine", "yours"):
        place(tmp_path / name, train="a", val="b")
    assert fails(tmp_path) == (
        f"{tmp_path}: several VOC data sets in it (mine, yours); name the image sets with `sets` of the train data "
        "set, such as [mine/train]"
    )
    assert names(tmp_path, ("mine/train", "yours/train"))[0] == ["mine/train", "yours/train"]


def test_no_images(tmp_path: Path) -> None:
    root = place(tmp_path / "data", images=False, train="a", val="b")
    assert fails(root) == f"{root}: has Annotations, but no folder JPEGImages with the images"


def test_formats(tmp_path: Path) -> None:
    assert formats_at(tmp_path / "none") == set()
    assert formats_at(tmp_path) == set()
    place(tmp_path / "VOC2007")
    assert formats_at(tmp_path) == {"voc"}
    (tmp_path / "valid").mkdir()
    (tmp_path / "valid/_annotations.coco.json").write_text("")
    assert formats_at(tmp_path) == {"voc", "coco"}


def test_configs_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="no VOC data set in it"):
        VocConfig(split="train").build(str(tmp_path))
    with pytest.raises(LayoutError, match="no annotation file for the train split"):
        CocoConfig(split="train").build(str(tmp_path))


def test_a_folder_without_validation_has_training_and_test_sets(tmp_path: Path) -> None:
    root = place(tmp_path / "data", trainval="a")
    assert [s.name for s in find_voc_sets(root, "train")] == ["trainval"]
    assert has_voc_split(root, "train")
    assert not has_voc_split(root, "val")
    assert not has_voc_split(root, "test")
    root = place(tmp_path / "other", trainval="a", test="b")
    assert [s.name for s in find_voc_sets(root, "test")] == ["test"]
    assert [s.name for s in find_voc_sets(root, "val")] == ["test"]
    assert has_voc_split(tmp_path / "none", "val")  # opening it says what is wrong
