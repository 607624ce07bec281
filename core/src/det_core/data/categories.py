"""Comparison of the classes of two data sets."""

from __future__ import annotations

from det_core.contracts import DetectionDataset
from det_core.errors import DataError, listing


def check_same_categories(train: DetectionDataset, val: DetectionDataset) -> None:
    """Raise DataError if two data sets do not have the same classes with the same labels."""
    problems = category_mismatch(train, val)
    if problems:
        remedy = (
            "make `categories` (names and ids) of both annotation files equal; in VOC format give both data sets the "
            "same `classes`"
        )
        title = f"{train.name} and {val.name} do not have the same categories:"
        raise DataError("\n".join([title, *listing(problems), remedy]))


def category_mismatch(train: DetectionDataset, val: DetectionDataset) -> list[str]:
    """The differences between the classes of two data sets, one line each; empty if they are equal."""
    ours = dict(zip(train.classes.ids, train.classes.names, strict=True))
    theirs = dict(zip(val.classes.ids, val.classes.names, strict=True))
    lines = []
    for number in sorted({*ours, *theirs}):
        if number not in theirs:
            lines.append(f"id {number}: {ours[number]!r} is only in {train.name}")
        elif number not in ours:
            lines.append(f"id {number}: {theirs[number]!r} is only in {val.name}")
        elif ours[number] != theirs[number]:
            lines.append(f"id {number}: {ours[number]!r} in {train.name}, but {theirs[number]!r} in {val.name}")
    return lines
