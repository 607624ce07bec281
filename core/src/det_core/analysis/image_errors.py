"""Errors of each image, the worst images of each kind, and annotations that may be wrong.

Letters: I images, N detections, M objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import frozen

from det_core.analysis.columns import Columns, Flags, Floats, Ints
from det_core.analysis.errors import KINDS, Errors
from det_core.analysis.matching import HALF, NONE, Matches
from det_core.analysis.names import ErrorKind

CONFIDENT = 0.5  # scores below it are no reason to look at an annotation


@frozen(eq=False)
class Counts:
    """Numbers of each image (I,) at a score threshold: right detections, wrong ones, objects not found."""

    right: Ints
    wrong: Ints
    missed: Ints

    @property
    def f1(self) -> Floats:
        """(I,) F1 of each image; 1 where there is neither an object nor a detection."""
        total = 2 * self.right + self.wrong + self.missed
        return np.divide(2.0 * self.right, total, out=np.ones(len(total)), where=total > 0)


def counts_of(columns: Columns, matches: Matches, threshold: float) -> Counts:
    """The numbers of each image for detections whose score is above a threshold, at IoU .50."""
    kept = columns.found.scores > threshold
    right, wrong = kept & matches.right[HALF], kept & matches.wrong()
    images, objects = len(columns.images), columns.objects
    true = np.bincount(columns.found.images[right], minlength=images)
    all_objects = np.bincount(objects.images[~objects.ignored], minlength=images)
    return Counts(true, np.bincount(columns.found.images[wrong], minlength=images), all_objects - true)


@frozen(eq=False)
class Case:
    """One error, for people to look at. found and object: rows of the columns, or `NONE`. weight: what orders them."""

    image: int
    found: int
    object: int
    weight: float


def worst_images(columns: Columns, errors: Errors, kind: ErrorKind, count: int) -> list[list[Case]]:
    """The errors of a kind in each of the images in which they weigh most, worst first.

    A wrong detection weighs its score; a missed object 1.
    """
    if kind == "missed":
        objects = np.flatnonzero(errors.missed)
        images, weights = columns.objects.images[objects], np.ones(len(objects))
        found = np.full(len(objects), NONE)
    else:
        found = np.flatnonzero(errors.of(kind))
        images, weights, objects = columns.found.images[found], columns.found.scores[found], errors.targets[found]
    if not len(images):
        return []
    totals = np.bincount(images, weights, len(columns.images))
    worst = [image for image in np.argsort(-totals, kind="stable")[:count].tolist() if totals[image] > 0]
    return [
        [
            Case(image, int(found[row]), int(objects[row]), float(weights[row]))
            for row in np.flatnonzero(images == image)[np.argsort(-weights[images == image], kind="stable")]
        ]
        for image in worst
    ]


@frozen(eq=False)
class LabelChecks:
    """Annotations that may be wrong, most likely first.

    unlabelled: confident detections where no object is annotated. other_class: confident, well placed detections of
    another class than the annotation's. never_found: objects without any detection near them, largest first.
    """

    unlabelled: list[Case]
    other_class: list[Case]
    never_found: list[Case]


def label_checks(columns: Columns, errors: Errors, count: int, seen: Sequence[Flags] = ()) -> LabelChecks:
    """Up to `count` of each kind. An annotation is never found only if no run finds it.

    Args:
        columns: of the run that is analysed.
        errors: its errors.
        count: maximum number of each kind.
        seen: of further runs, (M,) whether any detection is near an object.
    """
    near = near_any(columns)
    for flags in seen:
        near = near | flags
    objects = np.flatnonzero(~near & ~columns.objects.ignored)
    objects = objects[np.argsort(-columns.objects.areas[objects], kind="stable")][:count]
    cases = [Case(int(columns.objects.images[o]), NONE, int(o), float(columns.objects.areas[o])) for o in objects]
    return LabelChecks(
        _confident(columns, errors, "background", count), _confident(columns, errors, "classification", count), cases
    )


def near_any(columns: Columns) -> Flags:
    """(M,) objects that a detection of any class overlaps with."""
    near = np.zeros(len(columns.objects), np.bool_)
    near[columns.pairs.objects] = True
    return near


def _confident(columns: Columns, errors: Errors, kind: ErrorKind, count: int) -> list[Case]:
    found = columns.found
    rows = np.flatnonzero(errors.of(kind) & (found.scores >= CONFIDENT))
    rows = rows[np.argsort(-found.scores[rows], kind="stable")][:count]
    return [Case(int(found.images[r]), int(r), int(errors.targets[r]), float(found.scores[r])) for r in rows]


def errors_by_class(columns: Columns, errors: Errors) -> Ints:
    """(kinds, K) number of errors: wrong detections by their own class, missed objects by theirs."""
    classes = len(columns.classes)
    rows = [
        np.bincount(
            columns.objects.labels[errors.missed] if kind == "missed" else columns.found.labels[errors.of(kind)],
            minlength=classes,
        )
        for kind in KINDS
    ]
    return np.stack(rows).astype(np.int64)
