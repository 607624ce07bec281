"""Reading a data set in YOLO format (Ultralytics): a text file per image, with an object a line.

A line is `class cx cy w h` (a box) or `class x1 y1 x2 y2 x3 y3 ...` (a polygon). All numbers but the class are
fractions of the image's width and height. An image without a text file has no objects.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from attrs import define, field

from det_core.contracts import BadSample
from det_core.data.bad_samples import BadImage
from det_core.data.coco_columns import Record
from det_core.data.coco_sections import Sections
from det_core.data.file_names import Folder
from det_core.data.images import image_size
from det_core.data.polygons import box_and_area
from det_core.data.yolo_list import YoloList, split_images
from det_core.errors import first_few
from det_core.settings import show
from det_core.structures import Classes

BOX = 5  # values of a box
POLYGON = 7  # the fewest values of a polygon, whose number is odd
LARGEST = 2.0  # no fraction of a side is larger, even of a box that leaves its image
SHAPE = "expected `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...`"


def read_yolo(data: YoloList, split: str, *, keep_values: bool = False) -> Sections:
    """The images and objects of a split, image names relative to `data.root`; LayoutError if there are no images.

    Ids of images count from 1 in the order of the list; those of categories are the numbers of classes. keep_values:
    annotations have the numbers of their lines as `yolo`, for a converter.
    """
    reading = _Reading(data.names, keep_values)
    for number, image in enumerate(split_images(data, split), 1):
        reading.take(number, image, os.path.relpath(image, data.root))
    return Sections(
        path=data.path,
        images=reading.images,
        annotations=reading.annotations,
        classes=Classes(names=tuple(data.names.values()), ids=tuple(data.names)),
        places=reading.places,
        bad=tuple(reading.bad),
        notes=data.notes,
    )


def labels_file(image: Path) -> Path:
    """The text file of an image: its last folder `images` is `labels`, or it is beside the image."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


@define(eq=False)
class _Reading:
    """Collects records, places and bad samples. names: of classes, by number. keep_values: see `read_yolo`."""

    names: dict[int, str]
    keep_values: bool
    images: list[Record] = field(factory=list)
    annotations: list[Record] = field(factory=list)
    places: list[tuple[str, str]] = field(factory=list)
    bad: list[BadSample] = field(factory=list)
    _folders: dict[Path, Folder] = field(factory=dict)

    def take(self, number: int, image: Path, name: str) -> None:
        """Add an image with its objects."""
        try:
            height, width = image_size(image)
        except BadImage as error:
            self.bad.append(BadSample(error.sample.what, str(image), number))
            return
        self.images.append({"id": number, "file_name": name, "width": width, "height": height})
        file = labels_file(image)
        folder = self._folders.setdefault(file.parent, Folder(file.parent))
        if file.name not in folder:
            return
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            self.bad.append(BadSample(f"the text file of objects cannot be read: {error}", str(file), number))
            return
        for count, line in enumerate(lines, 1):
            if line.strip():
                self._take_line(line, count, file, number, (width, height))

    def _take_line(self, line: str, count: int, file: Path, image: int, size: tuple[int, int]) -> None:
        values = line.split()
        if problem := self._problem(values):
            self.bad.append(BadSample(f"line {count}: {problem}", str(file), image))
            return
        numbers = [float(value) for value in values[1:]]
        record = _of_box(numbers, size) if len(values) == BOX else _of_polygon(numbers, size)
        label = int(float(values[0]))
        if self.keep_values:
            record["yolo"] = numbers
        self.annotations.append(
            {"id": len(self.annotations) + 1, "image_id": image, "category_id": label, "iscrowd": 0, **record}
        )
        self.places.append((str(file), f"line {count}"))

    def _problem(self, values: Sequence[str]) -> str:
        """What is wrong with the values of a line, or ""."""
        if len(values) != BOX and (len(values) < POLYGON or len(values) % 2 == 0):
            return f"found {len(values)} values; {SHAPE}"
        numbers = [_number(value) for value in values]
        if any(number is None for number in numbers):
            wrong = next(v for v, number in zip(values, numbers, strict=True) if number is None)
            return f"found {show(wrong)}, expected a finite number; {SHAPE}"
        label, *fractions = [number for number in numbers if number is not None]
        if label not in self.names:
            known = first_few([f"{key} ({name})" for key, name in self.names.items()], 8)
            return f"unknown class {values[0]}; `names` has {known}"
        if any(abs(value) > LARGEST for value in fractions):
            wrong = next(v for v, x in zip(values[1:], fractions, strict=True) if abs(x) > LARGEST)
            return f"found {wrong}, expected fractions of the image's width and height, not pixels"
        return ""


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _of_box(values: Sequence[float], size: tuple[int, int]) -> Record:
    x, y, w, h = box_in_pixels(values, size)
    return {"bbox": [x, y, w, h], "area": w * h}


def box_in_pixels(values: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """(x, y, width, height) in pixels of a box (cx, cy, w, h) in an image of (width, height)."""
    cx, cy, w, h = values
    width, height = w * size[0], h * size[1]
    return cx * size[0] - width / 2, cy * size[1] - height / 2, width, height


def _of_polygon(values: Sequence[float], size: tuple[int, int]) -> Record:
    ring = polygon_in_pixels(values, size)
    return {"segmentation": [ring], **box_and_area([ring])}


def polygon_in_pixels(values: Sequence[float], size: tuple[int, int]) -> list[float]:
    """A polygon x, y, x, y, ... in pixels of an image of (width, height)."""
    return [value * size[place % 2] for place, value in enumerate(values)]
