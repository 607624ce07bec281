"""Reading a COCO annotation file.

A file that cannot be used at all (not JSON, no list of images, ambiguous categories) is a DataError.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from det_core.data.bounds import is_id
from det_core.data.coco_checks import kind, missing
from det_core.data.coco_columns import Record
from det_core.data.coco_sections import Sections, without_root
from det_core.errors import DataError
from det_core.structures import Classes

SECTIONS = ("images", "annotations", "categories")


def read_sections(path: Path) -> Sections:
    """The parts of an annotation file, without the empty root category of Roboflow; DataError if it is unusable."""
    with without_collecting():
        parts = _sections(path, _read_json(path))
    _check_categories(path, parts["categories"])
    categories, note = without_root(parts["categories"], parts["annotations"])
    return Sections(
        path=path,
        images=parts["images"],
        annotations=parts["annotations"],
        classes=_classes(categories),
        notes=(note,) if note else (),
    )


@contextmanager
def without_collecting() -> Iterator[None]:
    """Inside, the garbage collector does not look at the millions of new objects again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read_json(path: Path) -> object:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the annotation file cannot be read: {error.strerror or error}") from None
    if not text.strip():
        raise DataError(f"{path}: the annotation file is empty")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the annotation file is not JSON: {error}") from None


def _sections(path: Path, data: object) -> dict[str, list[Any]]:
    """The three lists of a COCO file."""
    shape = "a COCO file is an object with lists `images`, `annotations` and `categories`"
    if not isinstance(data, dict):
        raise DataError(f"{path}: found {kind(data)}; {shape}")
    for name in SECTIONS:
        if name not in data:
            raise DataError(f"{path}: has no `{name}` (found {', '.join(map(str, data)) or 'nothing'}); {shape}")
        if not isinstance(data[name], list):
            raise DataError(f"{path}: `{name}` is {kind(data[name])}; {shape}")
        if not data[name]:
            raise DataError(f"{path}: `{name}` is empty: there is nothing to train on or to evaluate")
    return {name: data[name] for name in SECTIONS}


def _check_categories(path: Path, categories: list[Any]) -> None:
    """Raise DataError for a category without id or name, and for an id that is given twice."""
    names: dict[int, str] = {}
    for index, record in enumerate(categories):
        problem = missing(record, ("id", "name"))
        if problem or not is_id(record["id"]) or not isinstance(record["name"], str):
            what = problem or "expected a whole `id` of at most 64 bits and a text `name`"
            raise DataError(f"{path}: categories[{index}]: {what}")
        if record["id"] in names:
            raise DataError(
                f"{path}: category id {record['id']} is given twice ({names[record['id']]!r} and "
                f"{record['name']!r}); category ids must be unique"
            )
        names[record["id"]] = record["name"]


def _classes(categories: list[Record]) -> Classes:
    """Classes in ascending order of their ids."""
    names = {record["id"]: record["name"] for record in categories}
    ids = tuple(sorted(names))
    return Classes(names=tuple(names[i] for i in ids), ids=ids)
