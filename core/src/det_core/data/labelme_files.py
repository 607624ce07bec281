"""Reading a data set in labelme's format: a JSON file per image, with a list of `shapes`.

Polygons, rectangles, circles and masks are objects; shapes with one `group_id` and one label are parts of one object.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import define, field

from det_core.contracts import BadSample
from det_core.data.bad_samples import BadImage
from det_core.data.bounds import is_finite
from det_core.data.coco_columns import Record
from det_core.data.coco_sections import Sections
from det_core.data.data_root import LayoutError
from det_core.data.file_suffixes import image_files
from det_core.data.format_search import ALIASES, labelme_files
from det_core.data.images import image_size, size_problem
from det_core.data.polygons import box_and_area
from det_core.errors import counted
from det_core.settings import show
from det_core.structures import Classes

CIRCLE_POINTS = 64  # of the polygon that a circle becomes
KINDS = ("polygon", "rectangle", "circle")


def read_labelme(root: Path, split: str) -> Sections:
    """The images and objects of a split, image names relative to `root`; LayoutError if there is no JSON file for it.

    The split is that of a folder (`train`, `val`, ...), or all files are training data. Classes are the labels in all
    files below the root, sorted, so that all splits have the same; their ids count from 1.
    """
    files = labelme_files(root)
    chosen = split_files(root, files, split)
    contents = {path: _read(path) for path in files}
    names = sorted({label for content in contents.values() for label in _labels(content)})
    if not names:
        raise LayoutError(f"{root}: the labelme files have no shape with a label, so there is nothing to train on")
    reading = _Reading(root, {name: number for number, name in enumerate(names, 1)})
    for number, path in enumerate(chosen, 1):
        reading.take(number, path, contents[path])
    return Sections(
        path=root,
        images=reading.images,
        annotations=reading.annotations,
        classes=Classes(names=tuple(names), ids=tuple(range(1, len(names) + 1))),
        places=reading.places,
        bad=tuple(reading.bad),
        notes=_without_file(root, chosen, reading.images),
    )


def split_files(root: Path, files: Sequence[Path], split: str) -> list[Path]:
    """The files of a split; LayoutError if there are none."""
    top = {path: path.relative_to(root).parts[0].lower() if path.parent != root else "" for path in files}
    for alias in ALIASES[split]:
        if found := [path for path in files if top[path] == alias]:
            return found
    others = {alias for aliases in ALIASES.values() for alias in aliases}
    rest = [path for path in files if top[path] not in others]
    if split == "train" and rest:
        return rest
    what = "" if split == "train" else f" in a folder {' or '.join(ALIASES[split])}"
    raise LayoutError(f"{root}: no labelme files (JSON with `shapes`){what} for the {split} split")


def _read(path: Path) -> Any:
    """The content of a file; text with the problem if it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"


def _labels(content: Any) -> list[str]:
    shapes = content.get("shapes") if isinstance(content, dict) else None
    given = (
        [shape.get("label") for shape in shapes or () if isinstance(shape, dict)] if isinstance(shapes, list) else []
    )
    return [label for label in given if isinstance(label, str) and label]


def _without_file(root: Path, files: Sequence[Path], images: Sequence[Record]) -> tuple[str, ...]:
    """A line on the images beside the files that none of them names: labelme writes no file for an image left empty."""
    named = {os.path.normpath(root / record["file_name"]) for record in images}
    folders = dict.fromkeys(path.parent for path in files)
    beside = {os.path.normpath(folder / name) for folder in folders for name in image_files(folder)}
    count = len(beside - named)
    return (f"{counted(count, 'image')} without a labelme file left out",) if count else ()


@define(eq=False)
class _Reading:
    """Collects records, places and bad samples. ids: of classes, by name."""

    root: Path
    ids: dict[str, int]
    images: list[Record] = field(factory=list)
    annotations: list[Record] = field(factory=list)
    places: list[tuple[str, str]] = field(factory=list)
    bad: list[BadSample] = field(factory=list)

    def take(self, number: int, path: Path, content: Any) -> None:
        """Add the image of a file with its objects."""
        if problem := _content_problem(content):
            self.bad.append(BadSample(problem, str(path), number))
            return
        image = _image_of(path, content["imagePath"])
        try:
            size = image_size(image)
        except BadImage as error:
            self.bad.append(BadSample(f"`imagePath` of {path.name}: {error.sample.what}", str(image), number))
            return
        annotated = (content.get("imageHeight"), content.get("imageWidth"))
        if None not in annotated and (problem := size_problem(size, annotated, path.name)):
            self.bad.append(BadSample(problem, str(path), number))
            return
        name = os.path.relpath(image, self.root)
        self.images.append({"id": number, "file_name": name, "width": size[1], "height": size[0]})
        self._take_shapes(number, path, content["shapes"], size)

    def _take_shapes(self, number: int, path: Path, shapes: Sequence[Any], size: tuple[int, int]) -> None:
        objects: dict[object, list[tuple[int, Any]]] = {}
        for index, shape in enumerate(shapes):
            if problem := _shape_problem(shape):
                self.bad.append(BadSample(f"shapes[{index}]: {problem}", str(path), number))
                continue
            group = shape.get("group_id")
            key = index if group is None else (shape["label"], group)
            objects.setdefault(key, []).append((index, shape))
        for parts in objects.values():
            index, first = parts[0]
            try:
                record = _record([shape for _, shape in parts], size)
            except ValueError as error:
                self.bad.append(BadSample(f"shapes[{index}]: {error}", str(path), number))
                continue
            label = self.ids[first["label"]]
            identity = {"id": len(self.annotations) + 1, "image_id": number, "category_id": label, "iscrowd": 0}
            self.annotations.append({**identity, **record})
            self.places.append((str(path), f"shapes[{index}]"))


def _content_problem(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        return "has no list `shapes`: not a file of labelme"
    name = content.get("imagePath")
    if not isinstance(name, str) or not name or "\0" in name:
        return f"`imagePath` is {show(name)}, expected the path of the image, relative to this file"
    return ""


def _image_of(path: Path, name: str) -> Path:
    """The image of a file: where its `imagePath` says, or beside it if there is none."""
    image = path.parent / name.replace("\\", "/")
    beside = path.parent / image.name
    return beside if not os.path.isfile(image) and os.path.isfile(beside) else image


def _shape_problem(shape: Any) -> str:
    if not isinstance(shape, dict):
        return f"is {show(shape)}, expected an object"
    if not isinstance(shape.get("label"), str) or not shape["label"]:
        return f"`label` is {show(shape.get('label'))}, expected the name of a class"
    kind, points = shape.get("shape_type", "polygon"), shape.get("points")
    if kind not in (*KINDS, "mask"):
        return f"`shape_type` {show(kind)} has no area; allowed: {', '.join(KINDS)}, mask"
    if not isinstance(points, list) or not all(_is_point(point) for point in points):
        return f"`points` is {show(points)}, expected a list of [x, y]"
    least, exact = (3, False) if kind == "polygon" else (2, True)
    if len(points) < least or (exact and len(points) != least and not (kind == "rectangle" and len(points) == 4)):
        return f"a {kind} of {len(points)} points, expected {least}{'' if exact else ' or more'}"
    if not isinstance(shape.get("group_id"), (int, str, type(None))):
        return f"`group_id` is {show(shape['group_id'])}, expected a number or null"
    return ""


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(map(is_finite, point))


def _record(shapes: Sequence[Any], size: tuple[int, int]) -> Record:
    """The mask, box and area of an object with these parts, in an image of (height, width); ValueError if damaged."""
    if any(shape.get("shape_type") == "mask" for shape in shapes):
        if len(shapes) > 1:
            raise ValueError("a shape of type mask has a `group_id` with other shapes; only polygons can be joined")
        return _of_mask(shapes[0], size)
    rings = [_ring(shape.get("shape_type", "polygon"), shape["points"]) for shape in shapes]
    return {"segmentation": rings, **box_and_area(rings)}


def _ring(kind: str, points: Sequence[Sequence[float]]) -> list[float]:
    """A shape as a polygon x, y, x, y, ...; a circle is given by its centre and a point on it."""
    if kind == "rectangle" and len(points) == 2:
        (x1, y1), (x2, y2) = points
        return [x1, y1, x2, y1, x2, y2, x1, y2]
    if kind == "circle":
        (x, y), (x2, y2) = points
        radius = math.hypot(x2 - x, y2 - y)
        angles = [2 * math.pi * step / CIRCLE_POINTS for step in range(CIRCLE_POINTS)]
        return [value for a in angles for value in (x + radius * math.cos(a), y + radius * math.sin(a))]
    return [value for point in points for value in point]


def _of_mask(shape: Any, size: tuple[int, int]) -> Record:
    """A mask: a picture in base64, whose first pixel is at the first of the two `points`."""
    import numpy as np
    from PIL import Image
    from pycocotools import mask as coco_mask

    try:
        with Image.open(io.BytesIO(base64.b64decode(shape.get("mask") or "", validate=True)), formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("L")) > 0
    except (OSError, ValueError, TypeError, binascii.Error) as error:
        raise ValueError(f"`mask` is no PNG in base64: {error}") from None
    left, top = (round(value) for value in shape["points"][0])
    bitmap = np.zeros(size, np.uint8, order="F")
    inside = bitmap[max(top, 0) : top + pixels.shape[0], max(left, 0) : left + pixels.shape[1]]
    if left < 0 or top < 0 or inside.shape != pixels.shape:
        raise ValueError(f"`mask` reaches outside its image of {size[1]}x{size[0]} pixels")
    inside[:] = pixels
    code = coco_mask.encode(bitmap)
    x, y, w, h = coco_mask.toBbox(code).tolist()
    counts = code["counts"].decode("ascii")
    return {"segmentation": {"size": list(size), "counts": counts}, "bbox": [x, y, w, h], "area": int(bitmap.sum())}


def has_split(root: str, split: str) -> bool:
    """Whether a folder has labelme files of a split; True if there is no such folder, which opening reports."""
    folder = Path(root).expanduser()
    if not folder.is_dir():
        return True
    try:
        return bool(split_files(folder, labelme_files(folder), split))
    except LayoutError:
        return False
