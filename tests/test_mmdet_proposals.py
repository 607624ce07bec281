"""Proposals files of mmdet: converted, used by Fast R-CNN, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from det_core.cli.main import run
from det_core.data.proposals_file import read_proposals
from det_core.errors import DataError, WeightsError
from det_core.recipe import dataset_at
from det_core.weights.mmdet_proposals import read_mmdet_proposals

SIZES = ((40, 60), (50, 30), (32, 32))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images, whose ids do not ascend; the second has no object."""
    folder = tmp_path / "coco"
    (folder / "train2017").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images = []
    for number, (height, width) in zip((7, 3, 5), SIZES, strict=True):
        name = f"{number}.png"
        Image.new("RGB", (width, height)).save(folder / "train2017" / name)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [2, 2, 9, 9], "area": 81, "iscrowd": 0} for i in (7, 5)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
    (folder / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return folder


def written(folder: Path, lists: object, protocol: int = 2) -> Path:
    path = folder / "proposals.pkl"
    path.write_bytes(pickle.dumps(lists, protocol))
    return path


BOXES = [
    np.array([[1, 2, 9, 12, 0.25], [0, 0, 59, 39, 0.5]], np.float32),
    np.zeros((0, 5), np.float32),
    np.array([[3, 4, 31, 31.4, 0.75]], np.float32),
]


@pytest.mark.parametrize(("source", "last"), [("mmdet1", 1), ("mmdet", 0)])
def test_boxes_are_converted_in_the_order_of_the_annotation_file(
    root: Path, tmp_path: Path, source: str, last: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = written(tmp_path, BOXES), tmp_path / "made.safetensors"
    command = ["proposals", "--convert", str(file), "--from", source, "--data", str(root), "--split", "train"]
    assert run([*command, "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"3 images, 3 proposals, 1.0 per image (0 to 2) -> {out}\n" in said
    assert f"to use them: --set data.train.proposals={out.resolve()}\n" in said
    found = read_proposals(out)
    assert found.image_ids.tolist() == [3, 5, 7]
    assert found.facts["source"] == source
    assert found.of_row(0).shape == (0, 4)
    assert found.of_row(2).tolist() == [[0, 0, 59 + last, 39 + last], [1, 2, 9 + last, 12 + last]]  # best first
    assert torch.allclose(found.of_row(1), torch.tensor([[3.0, 4.0, 31.0 + last, min(31.4 + last, 32.0)]]))
    with_them = dataset_at(root, "train").build(str(root))
    assert len(with_them) == 3


def test_boxes_without_scores(root: Path, tmp_path: Path) -> None:
    found = read_mmdet_proposals(
        written(tmp_path, [boxes[:, :4] for boxes in BOXES]), dataset_at(root, "train").build(str(root)), inclusive=True
    )
    assert [image.scores.tolist() for image in found] == [[1, 1], [], [1]]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (BOXES[:2], "proposals.pkl: boxes of 2 images, but .* has 3; such a file has no names, only the order of the"),
        ({"a": 1}, "proposals.pkl: holds a dict, expected a list with an array of boxes per image"),
        ([BOXES[0], "x", BOXES[2]], r"image 1 \(id 3\): found str, expected floats of shape \(p, 5\) or \(p, 4\)"),
        (
            [BOXES[0], BOXES[1], np.zeros((2, 3), np.float32)],
            r"image 2 \(id 5\): found float32 of shape \(2, 3\), expected floats of shape",
        ),
        (
            [BOXES[0], BOXES[0], BOXES[2]],
            r"image 1 \(id 3\): a box extends 30.0 pixels beyond its image of 30x50 pixels; is this the annotation",
        ),
        ([BOXES[0], BOXES[1], np.full((1, 5), np.nan, np.float32)], r"image 2 \(id 5\): a box extends nan pixels"),
    ],
)
def test_files_that_do_not_fit(root: Path, tmp_path: Path, lists: object, message: str) -> None:
    dataset = dataset_at(root, "train").build(str(root))
    with pytest.raises(DataError, match=message):
        read_mmdet_proposals(written(tmp_path, lists), dataset, inclusive=True)


def test_a_pickle_that_runs_code_is_refused(root: Path, tmp_path: Path) -> None:
    class Sneaky:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return open, (str(tmp_path / "made"),)

    dataset = dataset_at(root, "train").build(str(root))
    with pytest.raises(WeightsError, match="not a readable pickle of arrays"):
        read_mmdet_proposals(written(tmp_path, [Sneaky()]), dataset, inclusive=True)
    assert not (tmp_path / "made").exists()
    with pytest.raises(WeightsError, match="no such file"):
        read_mmdet_proposals(tmp_path / "none.pkl", dataset, inclusive=True)
