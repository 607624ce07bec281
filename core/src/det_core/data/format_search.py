"""Which formats a folder of data has: by the names of files, or else by a look into them."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

# The names of a split, most common first, letter case aside. Roboflow writes `valid`, and CVAT `default` for a task
# without splits; data without a validation split uses `test`.
ALIASES = {"train": ("train", "default"), "val": ("val", "valid", "validation", "test"), "test": ("test",)}

# (annotation file, image folders, most common first); {s} is the split's name.
LAYOUTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("annotations/instances_{s}2017.json", ("{s}2017", "images/{s}2017", "images")),
    ("annotations/instances_{s}.json", ("images/{s}", "{s}", "images", "JPEGImages", ".")),
    ("instances_{s}.json", ("images/{s}", "{s}", "images", "JPEGImages", ".")),
    ("{s}/_annotations.coco.json", ("{s}",)),
    ("annotations/{s}.json", ("images/{s}", "{s}", "images", "JPEGImages", ".")),
    ("{s}.json", ("images/{s}", "{s}", "images", "JPEGImages", ".")),
)

# The parts of a VOC folder.
VOC_PARTS = ("Annotations", "ImageSets/Main")

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


def formats_at(root: str | Path) -> frozenset[str]:
    """Which of the formats "coco", "voc", "yolo" and "labelme" a folder has; empty if it does not exist."""
    folder = Path(root).expanduser()
    files = Files(folder)
    names = [file.format(s=alias) for aliases in ALIASES.values() for alias in aliases for file, _ in LAYOUTS]
    found = {
        "coco": any(files.find(name) is not None for name in names),
        "voc": bool(voc_folders(folder)),
        "yolo": yolo_list(folder) is not None,
    }
    if not any(found.values()):  # only then is every file looked at
        found = {"coco": bool(coco_files(folder)), "labelme": bool(labelme_files(folder))}
    return frozenset(name for name, is_there in found.items() if is_there)


class Files:
    """Finds files below a root by their names, letter case aside if it must be; lists each folder only once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[Path, dict[str, list[str]]] = {}

    def find(self, name: str) -> Path | None:
        """The file of this name, or else the only one of this name in other letter case; None if there is none."""
        if (self._root / name).is_file():
            return self._root / name
        place = self._root
        for part in name.split("/"):
            same = self._entries(place).get(part.lower(), [])
            if len(same) != 1:
                return None
            place = place / same[0]
        return place if place.is_file() else None

    def _entries(self, folder: Path) -> dict[str, list[str]]:
        """The names in a folder, by their lower case."""
        if folder not in self._folders:
            names: dict[str, list[str]] = {}
            for entry in _listed(folder):
                names.setdefault(entry.lower(), []).append(entry)
            self._folders[folder] = names
        return self._folders[folder]


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def voc_folders(root: Path) -> dict[str, Path]:
    """The VOC folders of a root, by name: the root (""), or those in it, or those in its VOCdevkit."""
    if _is_voc(root):
        return {"": root}
    for base in (root, root / "VOCdevkit"):
        found = {name: base / name for name in _subfolders(base) if _is_voc(base / name)}
        if found:
            return found
    return {}


def _is_voc(folder: Path) -> bool:
    return all((folder / part).is_dir() for part in VOC_PARTS)


def _subfolders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []
