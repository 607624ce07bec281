"""Reading VOC image sets and the annotations of their images, with checks.

A set that cannot be used at all is a DataError. A bad image or object becomes a BadSample with file and line: it is
skipped, and the caller decides whether this is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import evolve, field, frozen

from det_core.contracts import BadSample
from det_core.data.bad_samples import BadImage
from det_core.data.class_choice import ClassEntry, unknown_names
from det_core.data.file_names import OUTSIDE, Folder, is_outside
from det_core.data.images import image_size, size_problem
from det_core.data.voc_layout import VocSet
from det_core.data.voc_xml import (
    Corners,
    Repairs,
    Text,
    VocAnnotation,
    VocObject,
    XmlError,
    objects_of,
    read_annotation,
    read_ids,
    size_of,
)
from det_core.errors import DataError, first_few, nearest

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".tif", ".tiff", ".webp")  # most common first
SHOWN = 20


@frozen(eq=False)
class VocImage:
    """A valid image.

    number: from 1 over all sets, including bad images. row: index of its set. file: name of the image in the set's
    folder. size: (height, width).
    """

    number: int
    row: int
    file: str
    size: tuple[int, int]
    objects: list[VocObject]


@frozen(eq=False, kw_only=True)
class VocRecords:
    """The valid images of image sets. bad: what was skipped. count: images that the sets list. others: numbers of
    objects of other classes that were left out."""

    classes: tuple[str, ...]
    images: list[VocImage]
    bad: list[BadSample]
    count: int
    others: int


def read_voc(
    sets: Sequence[VocSet],
    classes: Sequence[ClassEntry] | None,
    corners: Corners,
    *,
    allow_outside: bool = False,
    repairs: Repairs | None = None,
    drop_others: bool = False,
) -> VocRecords:
    """Read all images of the sets, with objects of these classes, or of all classes in the sets' folders.

    allow_outside: names of images may leave the folder of images. repairs: counts what is repaired; None: nothing is.
    drop_others: leave out objects of other classes, which are bad samples otherwise.

    Raises DataError if a set file cannot be used, or if others are dropped and a class is in no annotation.
    """
    new = None if classes is None else {entry.old: entry.new for entry in classes}
    reading = _Reading(sets, new, corners, allow_outside, repairs, drop_others)
    images = list(reading)
    if new is None or drop_others:
        known = tuple(sorted(reading.names | _other_names(reading)))
        if problem := unknown_names(classes or (), known):
            raise DataError(f"{sets[0].annotations}: {problem}")
    names = known if new is None else tuple(dict.fromkeys(new.values()))
    others = sum(reading.others)
    return VocRecords(classes=names, images=images, bad=reading.bad, count=len(reading.listed), others=others)


@frozen(eq=False)
class _Entry:
    """An image that a set lists. row: index of its set."""

    number: int
    row: int
    set: VocSet
    id: Text

    @property
    def annotation(self) -> Path:
        return self.set.annotations / f"{self.id.value}.xml"


@frozen(eq=False)
class _Reading:
    """Iterates over the valid images of sets, and collects bad samples and class names.

    classes: new names by old ones; None: all. others: numbers of dropped objects, an entry for each file.
    """

    sets: Sequence[VocSet]
    classes: dict[str, str] | None
    corners: Corners
    allow_outside: bool
    repairs: Repairs | None
    drop_others: bool
    others: list[int] = field(factory=list)
    bad: list[BadSample] = field(factory=list)
    names: set[str] = field(factory=set)
    listed: set[Path] = field(factory=set)

    def __iter__(self) -> Iterator[VocImage]:
        folders = {path: Folder(path) for s in self.sets for path in (s.annotations, s.images)}
        for entry in self._entries():
            file = self._file(entry, folders[entry.set.images])
            annotation = self._annotation(entry, folders[entry.set.annotations])
            found = None if file is None else self._size(entry, entry.set.images / file)
            if annotation is None:
                continue
            self.names.update(annotation.names())
            size, objects = self._content(entry, annotation, found)
            if file is not None and found is not None and size == found:
                yield VocImage(entry.number, entry.row, file, size, objects)

    def _entries(self) -> Iterator[_Entry]:
        """The images that the sets list, each once."""
        first: dict[Path, str] = {}
        number = 0
        for row, part in enumerate(self.sets):
            names = frozenset(path.name for path in part.annotations.iterdir())
            for text in read_ids(part.ids, names):
                number += 1
                entry = _Entry(number, row, part, text)
                where = f"line {text.line}" if len(self.sets) == 1 else f"line {text.line} of {part.ids}"
                if entry.annotation in first:
                    what = f"image {text.value!r} is given twice (first on {first[entry.annotation]})"
                    self._note(part.ids, f"line {text.line}: {what}", number)
                    continue
                if not self.allow_outside and is_outside(part.images, text.value):
                    self._note(part.ids, f"line {text.line}: image {text.value!r} {OUTSIDE}", number)
                    continue
                first[entry.annotation] = where
                self.listed.add(entry.annotation)
                yield entry

    def _note(self, file: Path, what: str, number: int) -> None:
        self.bad.append(BadSample(what, str(file), number))

    def _file(self, entry: _Entry, images: Folder) -> str | None:
        for suffix in SUFFIXES:
            if f"{entry.id.value}{suffix}" in images:
                return f"{entry.id.value}{suffix}"
        others = ", ".join(dict.fromkeys(s.lower() for s in SUFFIXES[1:]))
        what = f"the image file does not exist (nor one with {others}); {_listed_at(entry)}"
        self._note(entry.set.images / f"{entry.id.value}{SUFFIXES[0]}", what, entry.number)
        return None

    def _annotation(self, entry: _Entry, annotations: Folder) -> VocAnnotation | None:
        if f"{entry.id.value}.xml" not in annotations:
            self._note(entry.annotation, f"the annotation file does not exist; {_listed_at(entry)}", entry.number)
            return None
        try:
            return read_annotation(entry.annotation)
        except XmlError as error:
            self._note(entry.annotation, str(error), entry.number)
            return None

    def _size(self, entry: _Entry, path: Path) -> tuple[int, int] | None:
        """(height, width) of an image file."""
        try:
            return image_size(path)
        except BadImage as error:
            self._note(path, error.sample.what, entry.number)
            return None

    def _content(
        self, entry: _Entry, annotation: VocAnnotation, found: tuple[int, int] | None
    ) -> tuple[tuple[int, int], list[VocObject]]:
        """The size and valid objects of an annotation, for an image of size `found`."""
        annotated, problems = size_of(annotation)
        if not problems and found is not None and found != annotated:
            line = annotation.top.texts["size"].line
            problems = [f"line {line}: {size_problem(found, annotated, '`size`')}"]
        elif problems and found is not None:
            problems[-1] += f" (the image is {found[1]}x{found[0]} pixels)"
        objects: list[VocObject] = []
        if not problems or found is not None:  # otherwise the size is unknown
            objects, more = objects_of(annotation, found or annotated, self.corners, self.repairs)
            problems += more
        for problem in problems:
            self._note(entry.annotation, problem, entry.number)
        if self.classes is None:
            return annotated, objects
        if self.drop_others:
            self.others.append(sum(o.name not in self.classes for o in objects))
        known = [o for o in objects if self._is_known(entry, o)]
        return annotated, [evolve(o, name=self.classes[o.name]) for o in known]

    def _is_known(self, entry: _Entry, found: VocObject) -> bool:
        if self.classes is None or found.name in self.classes:
            return True
        if self.drop_others:
            return False
        allowed = f"{first_few(list(self.classes), SHOWN)}{nearest(found.name, self.classes)}"
        what = (
            f"line {found.line}: unknown class {found.name!r}, allowed: {allowed} "
            "(`classes: null` of the data set uses all classes in its annotations)"
        )
        self._note(entry.annotation, what, entry.number)
        return False


def _listed_at(entry: _Entry) -> str:
    return f"line {entry.id.line} of {entry.set.ids} lists it"


def _other_names(reading: _Reading) -> set[str]:
    """Class names in the readable annotations of the sets' folders that none of the sets lists."""
    names: set[str] = set()
    for folder in dict.fromkeys(part.annotations for part in reading.sets):
        for path in folder.glob("*.xml"):
            if path in reading.listed:
                continue
            try:
                names |= read_annotation(path).names()
            except XmlError:  # no set lists it, so it is not an error
                continue
    return names
