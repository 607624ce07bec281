"""Exports of annotation tools, written as the tools write them: names of files, ids, categories and all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (64, 48)  # width, height
BOXES = ((8, 8, 24, 20), (30, 16, 20, 24))  # x, y, width, height of the two objects of an image
Write = Callable[[Path], None]


def picture(path: Path, seed: int) -> None:
    """An image of noise with two bright rectangles."""
    pixels = np.random.default_rng(seed).integers(0, 80, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    for x, y, w, h in BOXES:
        pixels[y : y + h, x : x + w] = 220
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def ring(box: tuple[int, int, int, int]) -> list[float]:
    x, y, w, h = map(float, box)
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def coco(path: Path, names: list[str], categories: list[dict[str, Any]], first: int, polygons: bool) -> None:
    """A COCO file: images and annotations are numbered from `first`, the two objects are of the last categories."""
    ids = [category["id"] for category in categories][-2:]
    annotations = [
        {
            "id": first + 2 * image + k,
            "image_id": first + image,
            "category_id": ids[k],
            "bbox": list(map(float, box)),
            "area": float(box[2] * box[3]),
            "segmentation": [ring(box)] if polygons else [],
            "iscrowd": 0,
            "ignore": 0,
        }
        for image in range(len(names))
        for k, box in enumerate(BOXES)
    ]
    images = [{"id": first + i, "width": SIZE[0], "height": SIZE[1], "file_name": name} for i, name in enumerate(names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations, "info": {}}))


def roboflow(root: Path) -> None:
    """COCO's format: a folder per split, ids from 0, an empty root category, and hashes in names."""
    categories = [
        {"id": 0, "name": "cells-x1Yz", "supercategory": "none"},
        {"id": 1, "name": "cell", "supercategory": "cells-x1Yz"},
        {"id": 2, "name": "clump", "supercategory": "cells-x1Yz"},
    ]
    for seed, split in enumerate(("train", "valid", "test")):
        names = [f"img-{i}_png.rf.{seed}0c1d2e3f{i}.jpg" for i in range(3)]
        for i, name in enumerate(names):
            picture(root / split / name, 10 * seed + i)
        coco(root / split / "_annotations.coco.json", names, categories, first=0, polygons=False)
    (root / "README.roboflow.txt").write_text("exported")


def cvat(root: Path) -> None:
    """A task without subsets: annotations/instances_default.json, ids from 1, images in folders."""
    names = ["day/frame_000000.PNG", "day/frame_000001.PNG", "night/frame_000000.PNG"]
    for i, name in enumerate(names):
        picture(root / "images/default" / name, i)
    categories = [{"id": 1, "name": "cell", "supercategory": ""}, {"id": 2, "name": "clump", "supercategory": ""}]
    coco(root / "annotations/instances_default.json", names, categories, first=1, polygons=True)


def label_studio(root: Path) -> None:
    """result.json of Windows, ids from 0, upload hashes in names."""
    names = [f"{i}a2b3c4d-cell_{i}.png" for i in range(3)]
    for i, name in enumerate(names):
        picture(root / "images" / name, i)
    categories = [{"id": 0, "name": "cell"}, {"id": 1, "name": "clump"}]
    coco(root / "result.json", [f"images\\{name}" for name in names], categories, first=0, polygons=True)


def lone_json(root: Path) -> None:
    """A JSON file of any name beside a folder of images."""
    for i in range(3):
        picture(root / f"photos/{i}.png", i)
    categories = [{"id": 5, "name": "cell"}, {"id": 9, "name": "clump"}]
    coco(root / "labels v2.json", [f"{i}.png" for i in range(3)], categories, first=1, polygons=True)


def labelme(root: Path) -> None:
    """A JSON file beside each image, with the image in it; one object of two parts."""
    for i in range(3):
        picture(root / f"shots/{i}.png", i)
        points = [[box[:2], (box[0] + box[2], box[1] + box[3])] for box in BOXES]
        shapes = [
            {"label": label, "points": p, "group_id": 1, "description": "", "shape_type": "rectangle", "flags": {}}
            for label, p in zip(("cell", "clump"), points, strict=True)
        ]
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{i}.png", "imageData": "aGk="}
        text = json.dumps({**content, "imageHeight": SIZE[1], "imageWidth": SIZE[0]}, indent=2)
        (root / f"shots/{i}.json").write_text(text)


def yolo_lines(polygons: bool) -> str:
    lines = []
    for label, (x, y, w, h) in enumerate(BOXES):
        if polygons:
            values = [v / SIZE[k % 2] for k, v in enumerate(ring((x, y, w, h)))]
        else:
            values = [(x + w / 2) / SIZE[0], (y + h / 2) / SIZE[1], w / SIZE[0], h / SIZE[1]]
        lines.append(" ".join([str(label), *(f"{value:.6g}" for value in values)]))
    return "\n".join(lines) + "\n"


def ultralytics(root: Path) -> None:
    """data.yaml with a path of another machine and names as a mapping; polygons."""
    (root / "labels/train").mkdir(parents=True)
    (root / "labels/val").mkdir()
    for seed, split in enumerate(("train", "val")):
        for i in range(3):
            picture(root / f"images/{split}/{i}.png", 10 * seed + i)
            if i:  # the first image has no objects, and no text file
                (root / f"labels/{split}/{i}.txt").write_text(yolo_lines(polygons=True))
    text = "path: /content/datasets/cells\ntrain: images/train\nval: images/val\ntest:\nnames:\n  0: cell\n  1: clump\n"
    (root / "data.yaml").write_text(text)


def roboflow_yolo(root: Path) -> None:
    """data.yaml whose paths begin with a folder that the export leaves out; boxes."""
    for seed, split in enumerate(("train", "valid", "test")):
        (root / split / "labels").mkdir(parents=True)
        for i in range(3):
            picture(root / split / f"images/{i}_jpg.rf.jpg", 10 * seed + i)
            (root / split / f"labels/{i}_jpg.rf.txt").write_text(yolo_lines(polygons=False))
    text = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cell', 'clump']\n"
    (root / "data.yaml").write_text(text)
