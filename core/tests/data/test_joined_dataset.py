"""Several data sets as one: classes by name, unique ids, and messages that name the source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from det_core.data.bad_samples import EmptyPartError
from det_core.data.data_config import CocoConfig, SampleConfig, VocConfig
from det_core.data.data_root import LayoutError
from det_core.data.files_config import JoinedConfig, YoloConfig
from det_core.errors import DataError
from det_core.evaluation.metric_config import CocoEvaluatorConfig
from det_core.load import load_recipe
from det_core.recipe import Recipe
from det_core.settings import evolve

MakeCoco = Callable[..., Path]


def write_coco(folder: Path, names: dict[int, str], boxes: dict[int, list[int]]) -> None:
    """A COCO folder of one image (id 1) with a box (x, y, width, height) of each of these category ids."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    annotations = [
        {"id": i, "image_id": 1, "category_id": number, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, (number, box) in enumerate(boxes.items())
    ]
    images = [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}]
    categories = [{"id": number, "name": name} for number, name in names.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "train.json").write_text(json.dumps(content))


def write_yolo(folder: Path, names: list[str], line: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20)).save(folder / "b.png")
    (folder / "b.txt").write_text(line)
    (folder / "data.yaml").write_text(f"names: {json.dumps(names)}\ntrain: .\n")


def joined(**more: Any) -> JoinedConfig:
    sources = (CocoConfig(split="train", folder="one"), YoloConfig(split="train", folder="two"))
    return JoinedConfig(sources=sources, **more)


def test_images_of_all_sources(tmp_path: Path) -> None:
    write_coco(tmp_path / "one", {3: "cat", 7: "dog"}, {7: [0, 0, 10, 10]})
    write_yolo(tmp_path / "two", ["dog", "cat"], "1 0.5 0.5 0.5 0.5")
    data = joined().build(str(tmp_path))
    assert data.classes.names == ("cat", "dog")
    assert data.classes.ids == (1, 2)
    assert [Path(data.file(i)).name for i in range(2)] == ["a.png", "b.png"]
    assert data.sizes.tolist() == [[30, 40], [20, 20]]
    assert data.image_ids.tolist() == [1, 2]
    assert [data.load(i).labels.tolist() for i in range(2)] == [[1], [0]]
    assert [data.load(i).image_id for i in range(2)] == [1, 2]
    assert data.trained == 2
    truth = data.ground_truth()
    assert [(a["id"], a["image_id"], a["category_id"], a["bbox"]) for a in truth["annotations"]] == [
        (1, 1, 2, [0, 0, 10, 10]),
        (2, 2, 1, [5, 5, 10, 10]),
    ]
    assert [image["id"] for image in truth["images"]] == [1, 2]
    assert CocoEvaluatorConfig().build(data)


def test_ids_that_are_unique_are_kept(tmp_path: Path, make_coco: MakeCoco) -> None:
    root = make_coco()
    one = CocoConfig(split="train")
    whole = one.build(str(root))
    parts = (one.with_part(0, 0.25), one.with_part(0.25, 1))
    data = JoinedConfig(sources=tuple(p for p in parts if p is not None)).build(str(root))
    assert sorted(data.image_ids.tolist()) == sorted(whole.image_ids.tolist())
    assert data.classes == whole.classes
    twice = JoinedConfig(sources=(one, one)).build(str(root))
    assert twice.image_ids.tolist() == list(range(1, 2 * len(whole) + 1))


def test_other_classes_are_an_error_that_names_the_source(tmp_path: Path) -> None:
    write_coco(tmp_path / "one", {3: "cat", 7: "dog"}, {7: [0, 0, 10, 10]})
    write_yolo(tmp_path / "two", ["cat", "bus"], "1 0.5 0.5 0.5 0.5")
    with pytest.raises(DataError) as raised:
        joined().build(str(tmp_path))
    assert str(raised.value) == (
        f"the sources to join do not have the same classes: only {tmp_path}/two/data.yaml has bus; only "
        f"{tmp_path}/one/train.json has dog; rename them with `classes` of a source, or set `merge_classes: true` to "
        "take the classes of all"
    )
    data = joined(merge_classes=True).build(str(tmp_path))
    assert data.classes.names == ("cat", "dog", "bus")
    assert [data.load(i).labels.tolist() for i in range(2)] == [[1], [2]]


def test_classes_of_the_joined_data(tmp_path: Path) -> None:
    write_coco(tmp_path / "one", {3: "cat", 7: "dog"}, {3: [0, 0, 9, 9], 7: [0, 0, 10, 10]})
    write_yolo(tmp_path / "two", ["cat", "bus"], "1 0.5 0.5 0.5 0.5")
    data = joined(merge_classes=True, classes=("bus", "dog=pet")).build(str(tmp_path))
    assert data.classes.names == ("bus", "pet")
    assert [data.load(i).labels.tolist() for i in range(2)] == [[1], [0]]
    assert data.load(0).boxes.tolist() == [[0, 0, 10, 10]]
    assert data.dropped == {"of other classes": 1}
    assert data.trained is None
    assert [part.tolist() for part in data.object_labels()] == [[0, 1], [1, 0]]
    with pytest.raises(DataError, match="no class 'dug'; did you mean \"dog\""):
        joined(merge_classes=True, classes=("dug",)).build(str(tmp_path))
    write_yolo(tmp_path / "two", ["cat", "dog", "bus"], "1 0.5 0.5 0.5 0.5")
    none = joined(merge_classes=True, classes=("bus",)).build(str(tmp_path))
    assert none.trained == 0


def test_masks_and_bad_samples(tmp_path: Path) -> None:
    sample = SampleConfig(split="val")
    data = JoinedConfig(sources=(sample, SampleConfig(split="train"))).build("", masks=True, semantic=True)
    loaded = data.load(8)
    assert loaded.masks is not None
    assert len(loaded.masks) == len(loaded.boxes)
    assert loaded.semantic is not None
    assert data.semantic_classes == 2
    write_coco(tmp_path / "one", {3: "cat"}, {3: [0, 0, 9, 99]})
    write_yolo(tmp_path / "two", ["cat"], "0 0.5 0.5 0.5")
    with pytest.raises(DataError, match=r"one/train\.json: 1 bad sample"):
        joined().build(str(tmp_path))
    assert len(joined().build(str(tmp_path), on_bad_sample="skip").skipped) == 2
    assert joined().build(str(tmp_path), on_bad_sample="repair").notes[0].startswith(f"{tmp_path}/one/train.json: rep")


def test_splits_parts_and_formats(tmp_path: Path) -> None:
    write_coco(tmp_path / "one", {3: "cat"}, {3: [0, 0, 9, 9]})
    write_yolo(tmp_path / "two", ["cat"], "0 0.5 0.5 0.5 0.5")
    config = JoinedConfig(sources=(CocoConfig(split="train", folder="one"), CocoConfig(split="train", folder="two")))
    base = load_recipe("faster-rcnn/r18-fpn-demo")
    recipe = evolve(base, data=evolve(base.data, train=config, val=config.with_split("val"))).with_data(tmp_path)
    assert recipe.data.train == joined()
    assert len(recipe.open_train()) == 2
    settled = recipe.settled()
    assert settled.data.val is None
    assert isinstance(settled, Recipe)
    half = joined().with_part(0, 0.5)
    assert isinstance(half, JoinedConfig)
    assert [s.part for s in half.sources if isinstance(s, (CocoConfig, YoloConfig))] == [(0, 0.5)] * 2
    parts = [p for p in (joined().with_part(i / 16, (i + 1) / 16) for i in range(16)) if p is not None]
    assert sum(map(_images, [(part, tmp_path) for part in parts])) == 2
    with pytest.raises(EmptyPartError, match=r"no image of 1 is in the part \[\d.*\], which the content of the files"):
        next(part for part in parts if not _images((part, tmp_path))).build(str(tmp_path))
    assert JoinedConfig(sources=(SampleConfig(split="val"),)).with_part(0, 0.5) is None
    assert JoinedConfig(sources=(VocConfig(split="val", sets=("a",)),)).with_split("test") is None
    assert joined().has_proposals() is False
    with pytest.raises(LayoutError, match=r"one: no annotation file for the val split"):
        config.with_split("val").build(str(tmp_path))  # type: ignore[union-attr]


def _images(of: tuple[Any, Path]) -> int:
    """The images of a data set; a source that has none in the part is left out, unless all have none."""
    config, root = of
    try:
        return len(config.build(str(root)))
    except EmptyPartError:
        return 0
