"""Data sets made for a test: small images, an annotation file, and a hand to spoil them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Edit = Callable[[dict[str, Any]], None]


def box_ring(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def annotation(number: int, image: int, category: int, box: list[float], **more: Any) -> dict[str, Any]:
    x, y, w, h = box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": w * h,
        "iscrowd": 0,
        "segmentation": [box_ring(x, y, w, h)],
        **more,
    }


def plain() -> dict[str, Any]:
    """Four images (wide, tall, wide, square), five annotations; image 40 has none; category ids have gaps."""
    sizes = {10: (60, 40), 20: (30, 50), 30: (64, 48), 40: (32, 32)}
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": w, "height": h} for i, (w, h) in sizes.items()],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            annotation(1, 30, 3, [0, 0, 20, 10]),
            annotation(2, 10, 7, [5, 6, 20, 10]),
            annotation(3, 10, 3, [30, 20, 30, 20]),
            annotation(4, 20, 7, [1.5, 2.5, 10.25, 40]),
            annotation(
                5,
                30,
                7,
                [10, 10, 30, 30],
                iscrowd=1,
                segmentation={"size": [48, 64], "counts": [490, 30, 48 * 64 - 520]},
            ),
        ],
    }


@pytest.fixture
def make_coco(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a data set below tmp_path and returns its root; `edit` spoils the annotation dict."""

    def make(edit: Edit | None = None, split: str = "train", name: str = "data") -> Path:
        root = tmp_path / name
        (root / "images").mkdir(parents=True, exist_ok=True)
        data = plain()
        random = np.random.default_rng(0)
        for image in data["images"]:
            pixels = random.integers(0, 256, (image["height"], image["width"], 3), np.uint8)
            Image.fromarray(pixels).save(root / "images" / image["file_name"])
        if edit is not None:
            edit(data)
        (root / f"instances_{split}.json").write_text(json.dumps(data))
        return root

    return make


def voc_object(name: str, box: str, more: str = "") -> str:
    """An object of a VOC annotation, a line per element; `box` is "xmin ymin xmax ymax"."""
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
    inner = "".join(f"<{key}>{value}</{key}>\n" for key, value in corners)
    return f"<object>\n<name>{name}</name>\n{more}<bndbox>\n{inner}</bndbox>\n</object>\n"


def voc_xml(width: int, height: int, objects: str) -> str:
    """A VOC annotation; its objects begin on line 6."""
    size = f"<size>\n<width>{width}</width>\n<height>{height}</height>\n</size>\n"
    return f"<annotation>\n{size}{objects}</annotation>\n"


DIFFICULT = "<difficult>1</difficult>\n"
TRUNCATED = "<truncated>1</truncated>\n<difficult>0</difficult>\n"
VOC_IMAGES = {
    "000005": (60, 40, voc_object("dog", "6 7 25 16") + voc_object("cat", "31 21 60 40", DIFFICULT)),
    "000007": (30, 50, voc_object("dog", "1 1 30 50", TRUNCATED)),
    "000009": (64, 48, ""),
}


def write_voc(folder: Path, sets: dict[str, str], images: dict[str, tuple[int, int, str]]) -> None:
    """A VOC folder: sets are ids by name, images (width, height, objects) by id."""
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, ids in sets.items():
        (folder / "ImageSets/Main" / f"{name}.txt").write_text("\n".join(ids.split()) + "\n")
    random = np.random.default_rng(0)
    for name, (width, height, objects) in images.items():
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg")
        (folder / "Annotations" / f"{name}.xml").write_text(voc_xml(width, height, objects))


@pytest.fixture
def make_voc(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a flat VOC folder with sets `trainval` (two dogs and a difficult cat) and `test`."""

    def make(name: str = "data") -> Path:
        write_voc(tmp_path / name, {"trainval": "000005 000007 000009", "test": "000007"}, VOC_IMAGES)
        return tmp_path / name

    return make
