"""A data set in COCO's terms, before its records are checked: what the readers of all formats but VOC return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
from attrs import frozen

from det_core.contracts import BadSample
from det_core.data.bounds import is_id
from det_core.data.class_choice import ClassEntry, unknown_names
from det_core.data.coco_columns import Record
from det_core.errors import DataError
from det_core.structures import Classes

OTHER_CLASSES = "of other classes"


@frozen(eq=False, kw_only=True)
class Sections:
    """The parts of a data set, as those of a COCO file.

    path: the file or folder, for messages. images, annotations: records of COCO's format, not checked. classes: of the
    data set, in the order of their labels. places: (file, place in it) of each annotation; None: they are in `path`.
    bad: what the reader could not use. dropped: numbers of annotations that it left out, by what they are. notes: what
    else it did, a line each.
    """

    path: Path
    images: list[Any]
    annotations: list[Any]
    classes: Classes
    places: Sequence[tuple[str, str]] | None = None
    bad: tuple[BadSample, ...] = ()
    dropped: Mapping[str, int] = MappingProxyType({})
    notes: tuple[str, ...] = ()


def without_root(categories: Sequence[Record], annotations: Sequence[Any]) -> tuple[list[Record], str]:
    """The categories without the empty root that Roboflow writes, and a line that says so, or "".

    The root has the supercategory "none" and no annotations; all other categories name it as their supercategory.
    """
    roots = [c for c in categories if c.get("supercategory") == "none"]
    if len(roots) != 1 or len(categories) < 2:
        return list(categories), ""
    root = roots[0]
    others = [c for c in categories if c is not root]
    used = any(isinstance(a, dict) and a.get("category_id") == root.get("id") for a in annotations)
    if used or any(c.get("supercategory") != root.get("name") for c in others):
        return list(categories), ""
    return others, (
        f"category id {root['id']} ({root['name']!r}) is left out: it is the root of the other categories and has no "
        "annotations, as in Roboflow's exports"
    )


def choose_classes(sections: Sections, entries: Sequence[ClassEntry]) -> Sections:
    """The data set with these classes, in this order; annotations of other classes are left out, and counted.

    A class keeps the id of its first name in the data set. Raises DataError for a name that is not there.
    """
    known: dict[str, list[int]] = {}
    for name, number in zip(sections.classes.names, sections.classes.ids, strict=True):
        known.setdefault(name, []).append(number)
    if problem := unknown_names(entries, sections.classes.names):
        raise DataError(f"{sections.path}: {problem}")
    new: dict[str, int] = {}
    for entry in entries:
        new.setdefault(entry.new, known[entry.old][0])
    moved = {number: new[entry.new] for entry in entries for number in known[entry.old]}
    others = set(sections.classes.ids) - set(moved)
    kept = [i for i, a in enumerate(sections.annotations) if not _is_of(a, others)]
    left_out = len(sections.annotations) - len(kept)
    return attrs.evolve(
        sections,
        annotations=[_moved(sections.annotations[i], moved) for i in kept],
        classes=Classes(names=tuple(new), ids=tuple(new.values())),
        places=None if sections.places is None else [sections.places[i] for i in kept],
        dropped={**sections.dropped, **({OTHER_CLASSES: left_out} if left_out else {})},
    )


def _is_of(annotation: Any, ids: set[int]) -> bool:
    number = _category(annotation)
    return number is not None and number in ids


def _moved(annotation: Any, ids: Mapping[int, int]) -> Any:
    number = _category(annotation)
    if number is None or ids.get(number, number) == number:
        return annotation
    return {**annotation, "category_id": ids[number]}


def _category(annotation: Any) -> int | None:
    """The category id of an annotation; None if it has no valid one, which the checks report."""
    number = annotation.get("category_id") if isinstance(annotation, dict) else None
    return number if type(number) is int and is_id(number) else None
