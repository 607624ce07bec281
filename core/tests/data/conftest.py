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
