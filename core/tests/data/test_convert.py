"""`det-core data convert`: YOLO to COCO and back is exact; what a format cannot hold is said."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from det_core.cli.main import run
from det_core.data.data_config import CocoConfig
from det_core.data.files_config import YoloConfig
from det_core.data.yolo_lines import joined, to_line

MakeCoco = Callable[..., Path]
FILES = 1000


def number(rng: random.Random, low: float, high: float) -> float:
    """A fraction as tools write it: with six decimals, as a ratio of pixels, or with all digits of a float."""
    value = rng.uniform(low, high)
    kind = rng.randrange(3)
    if kind == 0:
        return round(value, 6)
    return round(value * 640) / 640 if kind == 1 else value


def text(values: list[float]) -> str:
    return " ".join(str(int(v)) if v == int(v) else repr(v) for v in values)


def box(rng: random.Random) -> list[float]:
    w, h = number(rng, 0.01, 0.5), number(rng, 0.01, 0.5)
    return [number(rng, w / 2, 1 - w / 2), number(rng, h / 2, 1 - h / 2), w, h]


def polygon(rng: random.Random) -> list[float]:
    return [number(rng, 0, 1) for _ in range(2 * rng.randint(3, 9))]


def write_random(root: Path) -> dict[str, str]:
    """A YOLO data set of random files; the text of those with objects, by name."""
    rng = random.Random(7)
    texts = {}
    (root / "images/train").mkdir(parents=True)
    (root / "labels/train").mkdir(parents=True)
    for i in range(FILES):
        Image.new("L", (rng.randint(20, 999), rng.randint(20, 999))).save(root / f"images/train/{i:04}.png")
        lines = [
            f"{rng.randrange(5)} {text(box(rng) if rng.random() < 0.5 else polygon(rng))}"
            for _ in range(rng.randrange(5))
        ]
        if lines:
            texts[f"{i:04}.txt"] = "\n".join(lines) + "\n"
            (root / f"labels/train/{i:04}.txt").write_text(texts[f"{i:04}.txt"])
    (root / "data.yaml").write_text("names: [a, b, c, d, e]\ntrain: images/train\n")
    return texts


def test_yolo_to_coco_and_back_is_exact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = write_random(tmp_path / "yolo")
    assert run(["data", "convert", "--data", f"{tmp_path}/yolo", "--to", "coco", "--out", f"{tmp_path}/coco"]) == 0
    objects = sum(content.count("\n") for content in texts.values())
    assert capsys.readouterr().out == f"train: {FILES} images, {objects} annotations\n"
    assert run(["data", "convert", "--data", f"{tmp_path}/coco", "--to", "yolo", "--out", f"{tmp_path}/again"]) == 0
    again = {path.name: path.read_text() for path in (tmp_path / "again/labels/train").iterdir()}
    assert again == texts
    content = json.loads((tmp_path / "coco/instances_train.json").read_text())
    kept = [a for a in content["annotations"] if "yolo" in a]
    assert 0 < len(kept) < objects  # only where pixels do not tell the fraction
    one = YoloConfig(split="train").build(str(tmp_path / "yolo"))
    two = CocoConfig(split="train").build(str(tmp_path / "coco"))
    assert one.ground_truth()["annotations"] == two.ground_truth()["annotations"]
    assert one.classes.names == two.classes.names


def test_changed_annotations_are_written_as_they_are_now(tmp_path: Path) -> None:
    record = {"bbox": [10, 10, 20, 10], "yolo": [0.25, 0.25, 0.25, 0.25]}
    assert to_line(record, 1, (80, 60)) == ("1 0.25 0.25 0.25 0.16666666666666666", "")
    assert to_line({**record, "bbox": [10, 7.5, 20, 15]}, 1, (80, 60))[0] == "1 0.25 0.25 0.25 0.25"
    assert to_line({**record, "yolo": "x"}, 1, (80, 60))[0] == "1 0.25 0.25 0.25 0.16666666666666666"


RING, OTHER = [10, 10, 30, 10, 30, 20], [40, 40, 50, 40, 50, 50]


@pytest.mark.parametrize(
    ("segmentation", "values", "lost"),
    [
        ([], "0.25 0.25 0.25 0.16666666666666666", ""),
        ([RING], "0.125 0.166667 0.375 0.166667 0.375 0.333333", ""),
        ([RING, [1, 2]], "0.125 0.166667 0.375 0.166667 0.375 0.333333", ""),
        ([RING, OTHER], None, "of several polygons, joined into one by lines without width"),
        (
            {"size": [60, 80], "counts": [4800]},
            "0.25 0.25 0.25 0.16666666666666666",
            "with a run-length code for a mask",
        ),
        ([["x"]], "0.25 0.25 0.25 0.16666666666666666", "with a mask that is not usable, written as boxes"),
    ],
)
def test_masks(segmentation: Any, values: str | None, lost: str) -> None:
    line, what = to_line({"bbox": [10, 10, 20, 10], "segmentation": segmentation}, 3, (80, 60))
    assert what.startswith(lost)
    assert bool(what) == bool(lost)
    found = [float(value) for value in line.split()]
    wanted = [v / (80, 60)[i % 2] for i, v in enumerate(joined([RING, OTHER]))] if values is None else values.split()
    assert found == pytest.approx([3, *map(float, wanted)], abs=1e-5)


def test_joined_polygons_have_the_area_of_both() -> None:
    from det_core.data.polygons import polygon_area

    assert polygon_area(joined([RING, OTHER])) == polygon_area(RING) + polygon_area(OTHER)


def test_coco_to_yolo_says_what_is_lost(
    make_coco: MakeCoco, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = make_coco()
    make_coco(split="val")
    arguments = ["data", "convert", "--data", str(root), "--to", "yolo", "--out", str(tmp_path / "out")]
    assert run([*arguments, "--images", "copy"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["train: 4 images, 5 annotations", "val: 4 images, 5 annotations"]
    assert "2 annotations of crowd regions left out, which YOLO's format does not have" in out
    assert not next(iter((tmp_path / "out/images/train").iterdir())).is_symlink()
    data = YoloConfig(split="val").build(str(tmp_path / "out"))
    whole = CocoConfig(split="val").build(str(root))
    assert data.classes.names == whole.classes.names
    assert data.trained == whole.trained
    assert run(arguments) == 1
    assert "exists and is not an empty folder; choose another, or empty it" in capsys.readouterr().err


def test_voc_to_yolo(make_voc: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_voc()
    assert run(["data", "convert", "--data", str(root), "--to", "yolo", "--out", str(tmp_path / "out")]) == 0
    assert "of crowd regions left out" in capsys.readouterr().out
    assert YoloConfig(split="train").build(str(tmp_path / "out")).trained


def test_two_images_of_one_name(make_coco: MakeCoco, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["images"][1].update(file_name=str(Path(data["images"][0]["file_name"]).with_suffix(".bmp")))

    root = make_coco(edit)
    first, second = (json.loads((root / "instances_train.json").read_text())["images"][i] for i in range(2))
    Image.new("RGB", (second["width"], second["height"])).save(root / "images" / second["file_name"])
    assert first["file_name"] != second["file_name"]
    assert run(["data", "convert", "--data", str(root), "--to", "yolo", "--out", str(tmp_path / "out")]) == 1
    assert "several images would have the text file" in capsys.readouterr().err


def test_what_cannot_be_converted(make_coco: MakeCoco, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["annotations"][0]["bbox"] = [0, 0, -1, 3]

    root = make_coco(edit)
    arguments = ["data", "convert", "--data", str(root), "--to", "coco", "--out", str(tmp_path / "out")]
    assert run(arguments) == 1
    assert "1 bad sample" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run([*arguments, "--on-bad-sample", "skip"]) == 0
    assert "left out: " in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    nothing = ["data", "convert", "--data", str(tmp_path / "empty"), "--to", "coco", "--out", str(tmp_path / "other")]
    assert run(nothing) == 1
    assert "found no data set" in capsys.readouterr().err

    def rename(data: dict[str, Any]) -> None:
        data["categories"][0]["name"] = "other"

    root = make_coco()
    make_coco(rename, split="val")
    assert run([*arguments[:-1], str(tmp_path / "third")]) == 1
    assert "its classes are not those of the other splits" in capsys.readouterr().err


def test_a_note_on_all_splits_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "yolo/images").mkdir(parents=True)
    Image.new("L", (9, 9)).save(tmp_path / "yolo/images/a.png")
    (tmp_path / "yolo/data.yaml").write_text("path: /none\nnames: [a]\ntrain: images\nval: images\n")
    assert run(["data", "convert", "--data", f"{tmp_path}/yolo", "--to", "yolo", "--out", f"{tmp_path}/out"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["train: 1 image, 0 annotations", "val: 1 image, 0 annotations"]
    assert len(out) == 3
    assert out[2].endswith("(/none) does not exist; its folder is taken instead")
