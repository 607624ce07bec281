"""Annotation files that no layout names, told apart by a look into them."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

HEAD = 4096  # bytes: labelme writes `shapes` first
COCO_KEYS = (b'"images"', b'"annotations"', b'"categories"')
LABELME_KEY = b'"shapes"'
YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


def coco_files(root: Path) -> list[Path]:
    """JSON files below a folder that look like COCO's: an object with images, annotations and categories; sorted."""
    return [path for path in _json_files(root) if _kind(path) == "coco"]


def labelme_files(root: Path) -> list[Path]:
    """JSON files below a folder that look like labelme's: an object with `shapes`; sorted."""
    return [path for path in _json_files(root) if _kind(path) == "labelme"]


def _json_files(root: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, file) for file in sorted(files) if file.lower().endswith(".json"))


def _kind(path: Path) -> str:
    """What a JSON file looks like: "coco", "labelme", or "" for another, or one that cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
                return ""
            if LABELME_KEY in head and not any(key in head for key in COCO_KEYS):
                return "labelme"
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if all(content.find(key) >= 0 for key in COCO_KEYS):
                    return "coco"
                return "labelme" if content.find(LABELME_KEY) >= 0 and content.find(b'"imagePath"') >= 0 else ""
    except (OSError, ValueError):
        return ""


def yolo_list(root: Path) -> Path | None:
    """The file of a folder in YOLO format that names its classes: data.yaml, or another, or classes.txt; or None.

    A YAML file of another name must have `names` and `train` (or `val`), and be the only one; classes.txt must be
    beside the folders `images` and `labels`.
    """
    for name in YOLO_FILES:
        if (root / name).is_file():
            return root / name
    found = [path for path in sorted(root.glob("*.y*ml")) if _is_yolo(path)]
    if len(found) == 1:
        return found[0]
    classes = root / "classes.txt"
    return classes if classes.is_file() and all((root / name).is_dir() for name in ("images", "labels")) else None


def _is_yolo(path: Path) -> bool:
    try:
        lines = path.read_text(encoding="utf8", errors="replace").splitlines()
    except OSError:
        return False
    keys = {line.partition(":")[0] for line in lines}
    return "names" in keys and bool({"train", "val"} & keys)
