"""The file of a YOLO data set that names its classes and the images of each split: data.yaml, or classes.txt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from attrs import frozen

from det_core.config.yaml_text import parse_yaml
from det_core.data.data_root import LayoutError
from det_core.data.file_suffixes import LIST_SUFFIXES, image_files
from det_core.data.format_search import yolo_list
from det_core.errors import DataError, DetError, first_few
from det_core.settings import show

KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@frozen(kw_only=True)
class YoloList:
    """What the file says. names: classes by index. root: the folder that paths are relative to. notes: remarks."""

    path: Path
    root: Path
    names: dict[int, str]
    splits: dict[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()


def read_list(root: Path, name: str | None = None) -> YoloList:
    """The list of a data set.

    Args:
        root: the data folder.
        name: of the file, relative to the root; None: data.yaml, or another that `format_search.yolo_list` finds.

    Raises:
        LayoutError: if there is no such file.
        DataError: if it cannot be used, with the place in it.
    """
    path = yolo_list(root) if name is None else root / name
    if path is None or not path.is_file():
        looked = "data.yaml, nor another YAML file with `names` and `train`" if path is None else str(path)
        raise LayoutError(
            f"{root}: no YOLO data set in it: no {looked}; correct the folder, or set `list_file` of the data set"
        )
    return _of_classes(path) if path.suffix == ".txt" else _of_yaml(path)


def _of_classes(path: Path) -> YoloList:
    """Label Studio's list: a class a line, with the images of all splits in one folder."""
    lines = path.read_text(encoding="utf8", errors="surrogateescape").splitlines()
    names = dict(enumerate(line.strip() for line in lines if line.strip()))
    if not names:
        raise DataError(f"{path}: the file is empty; expected the name of a class a line")
    found = {split: f"images/{split}" for split in KEYS if (path.parent / "images" / split).is_dir()}
    splits: dict[str, tuple[str, ...]] = {s: (folder,) for s, folder in (found or {"train": "images"}).items()}
    return YoloList(path=path, root=path.parent, names=names, splits=splits)


def _of_yaml(path: Path) -> YoloList:
    try:
        text = path.read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise DataError(f"{path}: found {show(content)}; expected a mapping with `names`, `train` and `val`")
    root, notes = _root(path, content.get("path"))
    splits = {split: _paths(path, content, keys) for split, keys in KEYS.items()}
    return YoloList(
        path=path,
        root=root,
        names=_names(path, content),
        splits={split: paths for split, paths in splits.items() if paths},
        notes=notes,
    )


def _root(path: Path, given: Any) -> tuple[Path, tuple[str, ...]]:
    """The folder that `path` names, or else that of the file: exports name folders of the machine they were made on."""
    if given is None:
        return path.parent, ()
    if not isinstance(given, str):
        raise DataError(f"{path}: `path` is {show(given)}, expected a folder")
    folder = path.parent / Path(given).expanduser()
    if os.path.isdir(folder):  # unlike that of a Path, no error for a name that is too long
        return folder, ()
    return path.parent, (f"`path` of {path} ({given}) does not exist; its folder is taken instead",)


def _names(path: Path, content: dict[Any, Any]) -> dict[int, str]:
    given = content.get("names")
    names = dict(enumerate(given)) if isinstance(given, list) else given
    if not isinstance(names, dict) or not names:
        found = "has no `names`" if given is None else f"`names` is {show(given)}"
        raise DataError(f"{path}: {found}; expected a list of class names, or a mapping of numbers to names")
    wrong = [(key, name) for key, name in names.items() if type(key) is not int or key < 0 or _text(name) is None]
    if wrong:
        raise DataError(f"{path}: `names` has {show(wrong[0][0])}: {show(wrong[0][1])}; expected a number and a name")
    if "nc" in content and content["nc"] != len(names):
        raise DataError(f"{path}: `nc` is {show(content['nc'])}, but `names` has {len(names)} classes; correct one")
    return {key: _text(names[key]) or "" for key in sorted(names)}


def _text(name: object) -> str | None:
    """A class name; YAML reads some, such as 7 or yes, as other values."""
    if isinstance(name, bool) or not isinstance(name, (str, int, float)):
        return None
    return str(name) or None


def _paths(path: Path, content: dict[Any, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
    for key in keys:
        given = content.get(key)
        if given is None:
            continue
        paths = given if isinstance(given, list) else [given]
        if not paths or not all(isinstance(item, str) and item for item in paths):
            raise DataError(f"{path}: `{key}` is {show(given)}, expected a folder, a text file, or a list of them")
        return tuple(paths)
    return ()


def split_images(data: YoloList, split: str) -> list[Path]:
    """The image files of a split, in the order of the list, each once; LayoutError if there are none."""
    if split not in data.splits:
        available = first_few(list(data.splits), 3) or "none"
        raise LayoutError(f"{data.path}: has no `{split}` images; available: {available}")
    images = [image for given in data.splits[split] for image in _images_at(data, split, given)]
    if not images:
        raise LayoutError(f"{data.path}: `{split}` ({', '.join(data.splits[split])}) has no images")
    return list(dict.fromkeys(images))


def _images_at(data: YoloList, split: str, given: str) -> list[Path]:
    place = data.root / Path(given).expanduser()
    if not os.path.exists(place) and given.startswith(
        "../"
    ):  # Roboflow's paths are relative to a folder that it leaves out
        place = data.root / given[3:]
    if os.path.isdir(place):
        return [place / name for name in image_files(place)]
    if os.path.isfile(place) and place.suffix.lower() in LIST_SUFFIXES:
        lines = place.read_text(encoding="utf8", errors="surrogateescape").splitlines()
        return [_listed(data, place, line.strip()) for line in lines if line.strip()]
    what = "is neither a folder nor a text file" if os.path.exists(place) else "does not exist"
    raise LayoutError(f"{data.path}: `{split}` names {show(given)}, which {what} (paths are relative to {data.root})")


def _listed(data: YoloList, file: Path, line: str) -> Path:
    """An image of a text file: relative to the file if it begins with a dot, else to the root of the data set."""
    base = file.parent if line.startswith("./") else data.root
    return Path(os.path.normpath(base / line))


def has_split(root: str, name: str | None, split: str) -> bool:
    """Whether a list names images of a split; True if it cannot be read, which opening reports."""
    try:
        return split in read_list(Path(root).expanduser(), name).splits
    except DetError:
        return True
