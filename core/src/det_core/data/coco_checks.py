"""Checking the records of a data set in COCO's terms, whatever file they are from.

A bad image or annotation becomes a BadSample: the record is skipped, and the caller decides whether this is an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field, frozen

from det_core.contracts import BadSample
from det_core.data.bad_samples import NoMasksError
from det_core.data.bounds import MAX_SIDE, TOLERANCE, is_finite, is_id, is_side
from det_core.data.coco_columns import AnnotationColumns, Record, columns_of, suspects
from det_core.data.coco_sections import Sections
from det_core.data.file_names import OUTSIDE, Folder, is_outside, name_problem
from det_core.data.instance_masks import segmentation_problem
from det_core.data.semantic_maps import map_name
from det_core.errors import first_few
from det_core.settings import show
from det_core.structures import Classes


@frozen(eq=False, kw_only=True)
class CocoRecords:
    """The usable records of an annotation file; `bad` lists the others.

    annotations: as they were given; columns: as arrays. segmentations: what they have as such, or None if masks were
    not asked for.
    """

    classes: Classes
    images: list[Record]
    annotations: list[Record]
    columns: AnnotationColumns
    segmentations: list[Any] | None
    bad: list[BadSample]

    def sizes(self) -> dict[int, tuple[int, int]]:
        """(height, width) of the images by id."""
        return {record["id"]: (record["height"], record["width"]) for record in self.images}


def check_sections(
    sections: Sections, image_folder: Path, masks: bool, maps: Path | None = None, *, allow_outside: bool = False
) -> CocoRecords:
    """The usable records of a data set.

    masks: annotations must have a valid segmentation. maps: the folder that must have a semantic map of every image.
    allow_outside: file names may leave the image folder.

    Raises:
        NoMasksError: if masks are asked for and no annotation has one.
    """
    if masks and sections.annotations and not any(map(_has_segmentation, sections.annotations)):
        raise NoMasksError(f"{sections.path}: masks are required, but no annotation has one (`segmentation`)")
    images = _Images(sections.path, image_folder, maps, allow_outside)
    images.take(sections.images)
    annotations = _Annotations(sections, images, masks)
    good = annotations.take(sections.annotations)
    columns = columns_of(good) if annotations.columns is None else annotations.columns
    assert columns is not None  # every record was checked
    return CocoRecords(
        classes=sections.classes,
        images=images.good,
        annotations=good,
        columns=columns,
        segmentations=[record.get("segmentation") for record in good] if masks else None,
        bad=[*sections.bad, *images.bad, *annotations.bad],
    )


def _has_segmentation(record: Any) -> bool:
    return isinstance(record, dict) and bool(record.get("segmentation"))


@frozen(eq=False)
class _Images:
    """The image records of a file: `good` ones, `bad` samples, and the ids of `refused` images."""

    path: Path
    folder: Path
    maps: Path | None
    allow_outside: bool
    good: list[Record] = field(factory=list)
    bad: list[BadSample] = field(factory=list)
    refused: set[int] = field(factory=set)

    def take(self, records: list[Any]) -> None:
        """Add records."""
        seen: set[int] = set()
        files = Folder(self.folder)
        maps = None if self.maps is None else Folder(self.maps)
        for index, record in enumerate(records):
            problem = _image_problem(record)
            number = record["id"] if isinstance(record, dict) and is_id(record.get("id")) else None
            if not problem and number in seen:
                self._note(f"images[{index}]: image id {number} is given twice", str(self.path), number)
                continue
            if problem or (problem := self._name_problem(record["file_name"])):
                self._note(f"images[{index}]{_of_id(number)}: {problem}", str(self.path), number)
            elif not self._has_files(record, files, maps):
                problem = "missing"
            else:
                self.good.append(record)
            if number is not None:
                (self.refused if problem else seen).add(number)
        self.refused.difference_update(seen)

    def _note(self, what: str, file: str, number: int | None) -> None:
        self.bad.append(BadSample(what, file, number))

    def _name_problem(self, name: str) -> str:
        outside = not self.allow_outside and is_outside(self.folder, name)
        return f"`file_name` {show(name)} {OUTSIDE}" if outside else ""

    def _has_files(self, record: Record, files: Folder, maps: Folder | None) -> bool:
        """Whether the image and its semantic map exist; notes what is missing."""
        name, number = record["file_name"], record["id"]
        if name not in files:
            self._note(f"image id {number}: the image file does not exist", str(self.folder / name), number)
            return False
        if maps is not None and map_name(name) not in maps:
            what = f"the semantic map does not exist; expected a PNG named like the image ({name})"
            self._note(f"image id {number}: {what}", str(maps.root / map_name(name)), number)
            return False
        return True


def _image_problem(record: Any) -> str:
    problem = missing(record, ("id", "file_name", "width", "height"))
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


@define(eq=False)
class _Annotations:
    """The annotations of a file: `bad` samples, and the good ones as `columns` where arrays hold all of them."""

    sections: Sections
    images: _Images
    masks: bool
    bad: list[BadSample] = field(factory=list)
    columns: AnnotationColumns | None = field(init=False, default=None)

    def take(self, records: list[Any]) -> list[Record]:
        """The usable records; those of refused images are left out without a word."""
        check = _AnnotationCheck(self.images.good, self.sections.classes, self.masks)
        columns = columns_of(records)
        good = np.ones(len(records), np.bool_)
        for index in self._to_check(records, columns, check):
            good[index] = self._is_good(index, records[index], check)
        if columns is not None:
            self.columns = columns if good.all() else columns.take(good)
        return records if good.all() else [records[i] for i in np.flatnonzero(good)]

    def _to_check(
        self, records: list[Any], columns: AnnotationColumns | None, check: _AnnotationCheck
    ) -> Iterable[int]:
        """Positions of the records that need a closer look: all, unless arrays tell which."""
        if columns is None:
            return range(len(records))
        sizes = {record["id"]: (record["height"], record["width"]) for record in self.images.good}
        strange = suspects(columns, sizes, self.sections.classes.ids)
        if self.masks:
            for index in np.flatnonzero(~strange & (columns.rules == 0)):
                record = records[index]
                strange[index] = bool(segmentation_problem(record.get("segmentation"), *sizes[record["image_id"]]))
        positions: list[int] = np.flatnonzero(strange).tolist()
        twice = {records[index]["id"] for index in positions}
        first = np.flatnonzero(~strange & np.isin(columns.ids, np.fromiter(twice, np.int64, len(twice))))
        check.seen.update(columns.ids[first].tolist())
        return positions

    def _is_good(self, index: int, record: Any, check: _AnnotationCheck) -> bool:
        if isinstance(record, dict) and is_id(record.get("image_id")) and record["image_id"] in self.images.refused:
            return False
        problem = check(record)
        if problem:
            number = record["id"] if isinstance(record, dict) and is_id(record.get("id")) else None
            self.bad.append(self._sample(index, number, problem))
        return not problem

    def _sample(self, index: int, number: int | None, problem: str) -> BadSample:
        """A bad annotation, with its place in the file that it is from."""
        if self.sections.places is None:
            return BadSample(f"annotations[{index}]{_of_id(number)}: {problem}", str(self.sections.path), number)
        file, place = self.sections.places[index]
        return BadSample(f"{place}: {problem}", file, number)


class _AnnotationCheck:
    """Returns the problem of an annotation, or "". Remembers ids to find annotations that are given twice."""

    def __init__(self, images: list[Record], classes: Classes, masks: bool) -> None:
        self._images = {record["id"]: record for record in images}
        self._categories = frozenset(classes.ids)
        self.seen: set[int] = set()
        self._masks = masks

    def __call__(self, record: Any) -> str:
        problem = missing(record, ("id", "image_id", "category_id", "bbox"))
        return problem or self._reference_problem(record) or self._content_problem(record)

    def _reference_problem(self, record: Record) -> str:
        if not is_id(record["id"]):
            return f"`id` is {show(record['id'])}, expected a whole number of at most 64 bits"
        if record["id"] in self.seen:
            return f"annotation id {record['id']} is given twice"
        self.seen.add(record["id"])
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
        if not problem and self._masks and not is_excluded(record):
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


def is_excluded(record: Record) -> bool:
    """Whether the reference excludes this valid annotation from training; see `RULES`."""
    _, _, w, h = record["bbox"]
    area = record.get("area")
    return bool(record.get("ignore")) or (w * h if area is None else area) <= 0 or w < 1 or h < 1


def kind(value: object) -> str:
    """What a value of a JSON file is, in words."""
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


def missing(record: Any, keys: Iterable[str]) -> str:
    """Which keys a record does not have, or that it is no object; "" if it has all."""
    if not isinstance(record, dict):
        return f"is {kind(record)}, expected an object"
    absent = [f"`{key}`" for key in keys if key not in record]
    return f"has no {' and no '.join(absent)}" if absent else ""


def _of_id(number: int | None) -> str:
    return "" if number is None else f" id {number}"
