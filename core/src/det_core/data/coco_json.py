"""Reading a COCO annotation file and checking every record.

A file that cannot be used at all (not JSON, no list of images, ambiguous categories) is a DataError. A bad image or
annotation becomes a BadSample: the record is skipped, and the caller decides whether this is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from attrs import field, frozen

from det_core.contracts import BadSample
from det_core.data.bounds import MAX_SIDE, TOLERANCE, is_finite, is_id, is_side
from det_core.data.file_names import OUTSIDE, Folder, is_outside, name_problem
from det_core.data.instance_masks import segmentation_problem
from det_core.data.semantic_maps import map_name
from det_core.errors import DataError, first_few
from det_core.settings import show
from det_core.structures import Classes

SECTIONS = ("images", "annotations", "categories")

Record = dict[str, Any]


@frozen(eq=False, kw_only=True)
class CocoRecords:
    """The usable records of an annotation file; `bad` lists the others."""

    classes: Classes
    images: list[Record] = field(factory=list)
    annotations: list[Record] = field(factory=list)
    bad: list[BadSample] = field(factory=list)


def read_coco(
    path: Path, image_folder: Path, masks: bool, maps: Path | None = None, *, allow_outside: bool = False
) -> CocoRecords:
    """The usable records of an annotation file; DataError if the file as a whole cannot be used.

    masks: annotations must have a valid segmentation. maps: the folder that must have a semantic map of every image.
    allow_outside: file names may leave the image folder.
    """
    sections = _sections(path, _read_json(path))
    records = CocoRecords(classes=_classes(path, sections["categories"]))
    refused = _take_images(path, image_folder, maps, sections["images"], records, allow_outside)
    _take_annotations(path, sections["annotations"], records, refused, masks)
    return records


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
        raise DataError(f"{path}: found {_kind(data)}; {shape}")
    for name in SECTIONS:
        if name not in data:
            raise DataError(f"{path}: has no `{name}` (found {', '.join(map(str, data)) or 'nothing'}); {shape}")
        if not isinstance(data[name], list):
            raise DataError(f"{path}: `{name}` is {_kind(data[name])}; {shape}")
        if not data[name]:
            raise DataError(f"{path}: `{name}` is empty: there is nothing to train on or to evaluate")
    return {name: data[name] for name in SECTIONS}


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        int: "a number",
        float: "a number",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


def _classes(path: Path, categories: list[Any]) -> Classes:
    """Classes in ascending order of their ids."""
    names: dict[int, str] = {}
    for index, record in enumerate(categories):
        problem = _missing(record, ("id", "name"))
        if problem or not is_id(record["id"]) or not isinstance(record["name"], str):
            what = problem or "expected a whole `id` of at most 64 bits and a text `name`"
            raise DataError(f"{path}: categories[{index}]: {what}")
        if record["id"] in names:
            raise DataError(
                f"{path}: category id {record['id']} is given twice ({names[record['id']]!r} and "
                f"{record['name']!r}); category ids must be unique"
            )
        names[record["id"]] = record["name"]
    ids = tuple(sorted(names))
    return Classes(names=tuple(names[i] for i in ids), ids=ids)


def _take_images(
    path: Path, folder: Path, maps: Path | None, images: list[Any], records: CocoRecords, allow_outside: bool
) -> set[int]:
    """Add the usable image records to `records`; returns the ids of the others."""
    seen: set[int] = set()
    refused: set[int] = set()
    exists = Folder(folder)
    map_exists = None if maps is None else Folder(maps)
    for index, record in enumerate(images):
        problem = _image_problem(record)
        if not problem and not allow_outside and is_outside(folder, record["file_name"]):
            problem = f"`file_name` {show(record['file_name'])} {OUTSIDE}"
        number = record["id"] if isinstance(record, dict) and is_id(record.get("id")) else None
        if problem:
            records.bad.append(BadSample(f"images[{index}]{_of_id(number)}: {problem}", str(path), number))
        elif number in seen:
            records.bad.append(BadSample(f"images[{index}]: image id {number} is given twice", str(path), number))
            continue
        elif record["file_name"] not in exists:
            file = str(folder / record["file_name"])
            records.bad.append(BadSample(f"image id {number}: the image file does not exist", file, number))
            problem = "missing"
        elif map_exists is not None and map_name(record["file_name"]) not in map_exists:
            file = str(map_exists.root / map_name(record["file_name"]))
            what = f"the semantic map does not exist; expected a PNG named like the image ({record['file_name']})"
            records.bad.append(BadSample(f"image id {number}: {what}", file, number))
            problem = "missing"
        else:
            records.images.append(record)
        if number is not None:
            (refused if problem else seen).add(number)
    return refused - seen


def _image_problem(record: Any) -> str:
    problem = _missing(record, ("id", "file_name", "width", "height"))
    if problem:
        return problem
    if not is_id(record["id"]):
        return f"`id` is {show(record['id'])}, expected a whole number of at most 64 bits"
    if not isinstance(record["file_name"], str) or not record["file_name"]:
        return f"`file_name` is {show(record['file_name'])}, expected the name of a file"
    if problem := name_problem(record["file_name"]):
        return f"`file_name` {problem}"
    for key in ("width", "height"):
        if not is_side(record[key]):
            return f"`{key}` is {show(record[key])}, expected a whole number of pixels from 1 to {MAX_SIDE}"
    return ""


def _take_annotations(path: Path, annotations: list[Any], records: CocoRecords, refused: set[int], masks: bool) -> None:
    """Add the usable annotations to `records`; those of refused images are skipped."""
    check = _AnnotationCheck(records, masks)
    for index, record in enumerate(annotations):
        if isinstance(record, dict) and is_id(record.get("image_id")) and record["image_id"] in refused:
            continue
        problem = check(record)
        if problem:
            number = record["id"] if isinstance(record, dict) and is_id(record.get("id")) else None
            records.bad.append(BadSample(f"annotations[{index}]{_of_id(number)}: {problem}", str(path), number))
        else:
            records.annotations.append(record)


class _AnnotationCheck:
    """Returns the problem of an annotation, or "". Remembers ids to find annotations that are given twice."""

    def __init__(self, records: CocoRecords, masks: bool) -> None:
        self._images = {record["id"]: record for record in records.images}
        self._categories = frozenset(records.classes.ids)
        self._seen: set[int] = set()
        self._masks = masks

    def __call__(self, record: Any) -> str:
        problem = _missing(record, ("id", "image_id", "category_id", "bbox"))
        return problem or self._reference_problem(record) or self._content_problem(record)

    def _reference_problem(self, record: Record) -> str:
        if not is_id(record["id"]):
            return f"`id` is {show(record['id'])}, expected a whole number of at most 64 bits"
        if record["id"] in self._seen:
            return f"annotation id {record['id']} is given twice"
        self._seen.add(record["id"])
        if not is_id(record["image_id"]) or record["image_id"] not in self._images:
            return f"unknown image id {show(record['image_id'])}"
        if not is_id(record["category_id"]) or record["category_id"] not in self._categories:
            known = first_few(sorted(self._categories), 8)
            found = show(record["category_id"])
            return f"{self._where(record)}unknown category id {found}; `categories` has {known}"
        if record.get("iscrowd") not in (None, 0, 1):
            return f"{self._where(record)}`iscrowd` is {show(record['iscrowd'])}, expected 0 or 1"
        return ""

    def _content_problem(self, record: Record) -> str:
        image = self._images[record["image_id"]]
        problem = _box_problem(record, image) or _area_problem(record)
        if not problem and self._masks and not dropping_rule(record):
            problem = segmentation_problem(record.get("segmentation"), image["height"], image["width"])
        return self._where(record) + problem if problem else ""

    def _where(self, record: Record) -> str:
        image = self._images[record["image_id"]]
        return f"image id {image['id']} ({image['file_name']}): "


def _box_problem(record: Record, image: Record) -> str:
    box = record["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(is_finite(v) for v in box):
        return f"box {show(box)} is not four finite numbers [x, y, width, height]"
    x, y, w, h = box
    if (w <= 0 or h <= 0) and not _flat_polygon(record):
        return f"box {box} has no area"
    width, height = image["width"], image["height"]
    if x < -TOLERANCE or y < -TOLERANCE or x + w > width + TOLERANCE or y + h > height + TOLERANCE:
        return f"box {box} (x, y, width, height) reaches outside its image of {width}x{height} pixels"
    return ""


def _area_problem(record: Record) -> str:
    area = record.get("area")
    return "" if area is None or is_finite(area) else f"`area` is {show(area)}, expected a finite number"


def _flat_polygon(record: Record) -> bool:
    """A polygon without area and with such a box. COCO's training set has two, so they are dropped, not bad."""
    flat = min(record["bbox"][2:]) == 0
    return (
        flat
        and isinstance(record.get("segmentation"), list)
        and bool(record["segmentation"])
        and record.get("area") == 0
    )


def dropping_rule(record: Record) -> str:
    """The rule by which the reference excludes this valid annotation from training, or ""."""
    _, _, w, h = record["bbox"]
    if record.get("ignore", False):
        return "marked as ignored"
    if area_of(record) <= 0:
        return "without area"
    return "with a side below 1 pixel" if w < 1 or h < 1 else ""


def area_of(record: Record) -> float:
    """The area of a record, or of its box if the record has none."""
    area = record.get("area")
    return float(record["bbox"][2] * record["bbox"][3] if area is None else area)


def _missing(record: Any, keys: Iterable[str]) -> str:
    if not isinstance(record, dict):
        return f"is {_kind(record)}, expected an object"
    absent = [f"`{key}`" for key in _absent(record, keys)]
    return f"has no {' and no '.join(absent)}" if absent else ""


def _absent(record: Record, keys: Iterable[str]) -> Iterator[str]:
    return (key for key in keys if key not in record)


def _of_id(number: int | None) -> str:
    return "" if number is None else f" id {number}"
