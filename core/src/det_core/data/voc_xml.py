"""Reading PASCAL VOC annotations: a list of image ids, and an XML file for each.

Errors give the line. Files with a DOCTYPE are refused: it is the only place where XML can define entities or refer to
other files.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Literal
from xml.parsers import expat  # safe here, since files with entities are refused: see _Reader.doctype

from attrs import define, field, frozen

from det_core.data.bounds import MAX_SIDE, TOLERANCE, is_side
from det_core.errors import DataError
from det_core.settings import show

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FLAGS = {"": False, "0": False, "1": True, "false": False, "true": True, "unspecified": False}  # in any case
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
FLAGGED = re.compile(r"(\S+)\s+(?:-1|0|1)")  # in the set file of a class: whether the image has the class

Corners = Literal["inclusive", "exact"]
Box = tuple[float, float, float, float]


class XmlError(Exception):
    """An annotation file or object cannot be used; the message begins with the line."""


class NoAreaError(XmlError):
    """A box has no area in its image."""


@define
class Repairs:
    """Numbers of boxes that were clipped to their images, and of those without area that were left out."""

    clipped: int = 0
    left_out: int = 0


@frozen
class Text:
    """The text of an element, and its line."""

    value: str
    line: int


@frozen
class Part:
    """An element: its line, and the texts below it by path (`bndbox/xmin`).

    twice: problems of elements that are given more than once.
    """

    line: int
    texts: dict[str, Text] = field(factory=dict)
    twice: list[str] = field(factory=list)

    def add(self, path: str, text: Text) -> None:
        if path in self.texts:
            self.twice.append(f"line {text.line}: `{path}` is given twice (first on line {self.texts[path].line})")
        else:
            self.texts[path] = text


@frozen
class VocAnnotation:
    """The unchecked content of an annotation file: top-level elements (`size/width`), and objects."""

    top: Part
    objects: list[Part]

    def names(self) -> set[str]:
        """The class names of its objects."""
        return {part.texts["name"].value for part in self.objects if "name" in part.texts} - {""}


@frozen
class VocObject:
    """A valid object: class name, box xyxy in pixels within its image, flags, and its first line."""

    name: str
    box: Box
    difficult: bool
    truncated: bool
    line: int


def read_ids(path: Path, annotations: frozenset[str] = frozenset()) -> list[Text]:
    """The image ids of a set file with their lines, in order.

    A second column of -1, 0 or 1, as in the set file of a class, is dropped, unless `annotations` (names of existing
    annotation files) contains the whole line. Raises DataError for a file that cannot be read or is empty.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: the image set cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the image set is not text in UTF-8: {error}") from None
    found = [Text(_id(line.strip(), annotations), number) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise DataError(f"{path}: the image set is empty; expected the name of an image, without suffix, on each line")
    return found


def _id(line: str, annotations: frozenset[str]) -> str:
    flagged = FLAGGED.fullmatch(line)
    return flagged[1] if flagged and f"{line}.xml" not in annotations else line


def read_annotation(path: Path) -> VocAnnotation:
    """The unchecked content of an annotation file; XmlError if it cannot be read or is not VOC XML."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise XmlError("the annotation file does not exist") from None
    except OSError as error:
        raise XmlError(f"the annotation file cannot be read: {error.strerror or error}") from None
    if not data.strip():
        raise XmlError("the annotation file is empty")
    return _Reader().read(data)


class _Reader:
    """Collects the texts of known elements of an annotation and ignores others, such as `object/part/name`."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self.doctype
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters
        self.path: list[str] = []
        self.lines: list[int] = []
        self.text = ""
        self.top = Part(1)
        self.objects: list[Part] = []

    def read(self, data: bytes) -> VocAnnotation:
        try:
            self.parser.Parse(data, True)
        except expat.ExpatError as error:
            raise XmlError(f"line {error.lineno}: not XML: {expat.ErrorString(error.code)}") from None
        except (ValueError, LookupError) as error:  # an unknown encoding
            raise XmlError(f"line {self.parser.CurrentLineNumber}: not XML that can be read: {error}") from None
        return VocAnnotation(self.top, self.objects)

    def doctype(self, name: str, *_: object) -> None:
        raise XmlError(
            f"line {self.parser.CurrentLineNumber}: has a DOCTYPE, which can define entities or refer to other files, "
            "so the file is not read; remove it, VOC annotations need none"
        )

    def start(self, name: str, _: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        if not self.path:
            if name != "annotation":
                raise XmlError(f"line {line}: found <{name}>, expected <annotation>: not a VOC annotation")
            self.top = Part(line)
        elif self.path == ["annotation"] and name == "object":
            self.objects.append(Part(line))
        self.path.append(name)
        self.lines.append(line)
        self.text = ""

    def characters(self, text: str) -> None:
        self.text += text

    def end(self, name: str) -> None:
        text = Text(self.text.strip(), self.lines[-1])
        match self.path[1:]:
            case ["size"] | ["size", "width" | "height"]:
                self.top.add("/".join(self.path[1:]), text)
            case ["object", "name" | "difficult" | "truncated" | "bndbox"]:
                self.objects[-1].add(name, text)
            case ["object", "bndbox", "xmin" | "ymin" | "xmax" | "ymax"]:
                self.objects[-1].add(f"bndbox/{name}", text)
        self.path.pop()
        self.lines.pop()
        self.text = ""


def size_of(annotation: VocAnnotation) -> tuple[tuple[int, int], list[str]]:
    """The (height, width) in an annotation, and its problems."""
    texts, problems, sides = annotation.top.texts, list(annotation.top.twice), []
    if "size" not in texts:
        return (0, 0), [f"line {annotation.top.line}: has no `size` of the image; expected `width` and `height` in it"]
    for name in ("height", "width"):
        text = texts.get(f"size/{name}")
        value = None if text is None else _number(text.value)
        if text is None:
            problems.append(f"line {texts['size'].line}: `size` has no `{name}`")
        elif value is None or not is_side(int(value)) or value != int(value):
            what = f"`{name}` is {show(text.value)}, expected a whole number of pixels from 1 to {MAX_SIDE}"
            problems.append(f"line {text.line}: {what}")
        sides.append(int(value or 0))
    return (sides[0], sides[1]), problems


def objects_of(
    annotation: VocAnnotation, size: tuple[int, int], corners: Corners, repairs: Repairs | None = None
) -> tuple[list[VocObject], list[str]]:
    """The valid objects of an image of (height, width), and the problems of the others.

    repairs: counts boxes that are clipped to the image, and those without area, which are left out; None: both are
    problems.
    """
    objects, problems = [], []
    for number, part in enumerate(annotation.objects, 1):
        try:
            objects.append(_object(part, size, corners, repairs))
        except NoAreaError as error:
            if repairs is None:
                problems.append(_problem(number, part, error))
            else:
                repairs.left_out += 1
        except XmlError as error:
            problems.append(_problem(number, part, error))
    return objects, problems


def _problem(number: int, part: Part, error: XmlError) -> str:
    line, _, what = str(error).partition(": ")
    name = part.texts["name"].value if "name" in part.texts else ""
    return f"{line}: object {number}{f' ({show(name)})' if name else ''}: {what}"


def _object(part: Part, size: tuple[int, int], corners: Corners, repairs: Repairs | None) -> VocObject:
    """Check an object; XmlError with the line and the problem."""
    if part.twice:
        raise XmlError(part.twice[0])
    name = part.texts.get("name")
    if name is None or not name.value:
        raise XmlError(f"line {(name or part).line}: has no `name` (its class)")
    difficult = part.texts.get("difficult", Text("", part.line))
    if difficult.value.lower() not in FLAGS:
        raise XmlError(f"line {difficult.line}: `difficult` is {show(difficult.value)}, expected 0 or 1")
    truncated = part.texts.get("truncated", Text("", part.line))  # only for reports, so invalid values mean False
    return VocObject(
        name=name.value,
        box=_box(part, size, corners, repairs),
        difficult=FLAGS[difficult.value.lower()],
        truncated=FLAGS.get(truncated.value.lower(), False),
        line=part.line,
    )


def _box(part: Part, size: tuple[int, int], corners: Corners, repairs: Repairs | None) -> Box:
    """The box xyxy, clipped to its image; XmlError with the line and the problem."""
    if "bndbox" not in part.texts:
        raise XmlError(f"line {part.line}: has no `bndbox`")
    line = part.texts["bndbox"].line
    values = [_corner(part, name, line) for name in CORNERS]
    written = f"box ({', '.join(f'{name} {value:g}' for name, value in zip(CORNERS, values, strict=True))})"
    if values[2] < values[0] or values[3] < values[1]:
        raise XmlError(f"line {line}: {written} is inverted: xmax and ymax must be the larger values")
    one = 1 if corners == "inclusive" else 0
    x1, y1, x2, y2 = values[0] - one, values[1] - one, values[2], values[3]
    if x1 == x2 or y1 == y2:
        raise NoAreaError(f"line {line}: {written} has no area")
    height, width = size
    x1_in, y1_in, x2_in, y2_in = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    far = min(x1, y1) < -TOLERANCE or x2 > width + TOLERANCE or y2 > height + TOLERANCE
    empty = x1_in >= x2_in or y1_in >= y2_in
    if empty or (far and repairs is None):
        kind = NoAreaError if empty else XmlError
        raise kind(f"line {line}: {written} reaches outside its image of {width}x{height} pixels")
    if far and repairs is not None:
        repairs.clipped += 1
    return x1_in, y1_in, x2_in, y2_in


def _corner(part: Part, name: str, line: int) -> float:
    text = part.texts.get(f"bndbox/{name}")
    if text is None:
        raise XmlError(f"line {line}: `bndbox` has no `{name}`")
    value = _number(text.value)
    if value is None:
        raise XmlError(f"line {text.line}: `{name}` is {show(text.value)}, expected a finite number")
    return value


def _number(text: str) -> float | None:
    """The text as a finite number, or None."""
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None
