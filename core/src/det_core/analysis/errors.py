"""Kinds of errors and the AP that each costs: TIDE (Bolya et al., 2020, "TIDE: A General Toolbox for Identifying Object
Detection Errors", sections 2.2 and 2.3).

Letters: N detections, M objects, K classes.

A detection that is wrong at IoU .50 has one kind, the first of these that applies (the order is that of the authors'
program): *localisation* (an object of its class with IoU .10 to .50), *classification* (one of another class with IoU
of at least .50), *duplicate* (an object of its class that a better detection has found), *background* (no object with
IoU above .10), *both* (what is left). *Missed* are objects that no detection finds and that no classification or
localisation error is about.

The AP that a kind costs is the gain in mean AP at IoU .50 if its errors alone were repaired: the best detection with a
wrong class or place gets the right one, and others of the same object are removed, as are duplicates, background and
both; missed objects are removed from the ground truth. The costs do not add up to 1 - AP.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
from attrs import frozen

from det_core.analysis.average_precision import Ranking, average_precisions, mean, objects_by_class
from det_core.analysis.columns import NEAR, SLACK, Columns, Flags, Floats, Ints
from det_core.analysis.matching import HALF, NONE, THRESHOLDS, Matches, best_overlaps
from det_core.analysis.names import ErrorKind

KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
CODES = {kind: code for code, kind in enumerate(KINDS)}
RIGHT = -1


@frozen(eq=False)
class Errors:
    """kinds (N,): the position in `KINDS` of the kind of a wrong detection, or `RIGHT` for one that is right or does
    not count. targets (N,): the object that a classification or localisation error is about, or the object that a
    duplicate repeats, or `NONE`. missed (M,): missed objects.
    """

    kinds: Ints
    targets: Ints
    missed: Flags

    def of(self, kind: ErrorKind) -> Flags:
        """(N,) wrong detections of a kind; none for `missed`."""
        return np.asarray(self.kinds == CODES[kind], np.bool_)

    def count(self, kind: ErrorKind) -> int:
        """The number of errors of a kind."""
        return int(self.missed.sum() if kind == "missed" else self.of(kind).sum())


@frozen(eq=False)
class Costs:
    """ap (K,): AP at IoU .50 by class, nan without objects. by_kind (kinds, K): AP of each class that a kind costs.

    repaired: the mean AP once the errors of a kind are repaired. false_positives, false_negatives: the mean AP that all
    wrong detections, or all objects that are not found, cost.
    """

    ap: Floats
    by_kind: Floats
    repaired: dict[str, float]
    false_positives: float
    false_negatives: float

    @property
    def mean_ap(self) -> float:
        """The mean AP at IoU .50 without repair."""
        return mean(self.ap)

    def total(self, kind: ErrorKind) -> float:
        """The mean AP that a kind costs."""
        return self.repaired[kind] - self.mean_ap


def find_errors(columns: Columns, matches: Matches) -> Errors:
    """The kind of each wrong detection, and the missed objects."""
    count, limit = len(columns.found), THRESHOLDS[HALF]
    pairs = columns.pairs.chosen(~columns.objects.ignored[columns.pairs.objects])
    same = columns.found.labels[pairs.found] == columns.objects.labels[pairs.objects]
    own, own_object = best_overlaps(pairs.chosen(same), count)
    other, other_object = best_overlaps(pairs.chosen(~same), count)
    wrong = matches.wrong()
    rules: tuple[tuple[ErrorKind, Flags], ...] = (
        ("localisation", (own >= NEAR) & (own < limit - SLACK)),
        ("classification", other >= limit - SLACK),
        ("duplicate", own >= limit - SLACK),
        ("background", np.maximum(own, other) <= NEAR),
        ("both", np.ones(count, np.bool_)),
    )
    kinds = np.full(count, RIGHT, np.int64)
    for kind, applies in rules:
        kinds[wrong & (kinds == RIGHT) & applies] = CODES[kind]
    targets = np.full(count, NONE, np.int64)
    for kind, objects in (
        ("localisation", own_object),
        ("classification", other_object),
        ("duplicate", own_object),
    ):
        rows = kinds == CODES[kind]
        targets[rows] = objects[rows]
    found = matches.found(len(columns.objects))
    explained = np.zeros(len(columns.objects), np.bool_)
    explained[targets[(kinds == CODES["localisation"]) | (kinds == CODES["classification"])]] = True
    return Errors(kinds, targets, ~found & ~explained & ~columns.objects.ignored)


def costs_of(columns: Columns, matches: Matches, errors: Errors) -> Costs:
    """The AP at IoU .50 that each kind of error costs."""
    right, counted, labels = matches.right[HALF], ~matches.ignored[HALF], columns.found.labels
    objects = columns.objects
    counts = objects_by_class(objects.labels, ~objects.ignored, len(columns.classes))
    ranking = Ranking.of(labels, columns.found.scores, len(columns.classes))
    ap = _ap(ranking, right, counted, counts)
    found = matches.found(len(objects))
    repaired: dict[str, Floats] = {}
    for kind in KINDS:
        if kind == "missed":
            left = objects_by_class(objects.labels, ~objects.ignored & ~errors.missed, len(columns.classes))
            repaired[kind] = _ap(ranking, right, counted, left)
        elif kind in ("localisation", "classification"):
            mended, removed = _mended(columns, errors, kind, found)
            new = labels.copy()
            new[mended] = objects.labels[errors.targets[mended]]
            order = ranking if kind == "localisation" else Ranking.of(new, columns.found.scores, len(columns.classes))
            repaired[kind] = _ap(order, right | mended, counted & ~removed, counts)
        else:
            repaired[kind] = _ap(ranking, right, counted & ~errors.of(kind), counts)
    all_found = objects_by_class(objects.labels, found, len(columns.classes))
    return Costs(
        ap=ap,
        by_kind=np.stack([repaired[kind] - ap for kind in KINDS]),
        repaired={kind: mean(values) for kind, values in repaired.items()},
        false_positives=mean(_ap(ranking, right, right, counts)) - mean(ap),
        false_negatives=mean(_ap(ranking, right, counted, all_found)) - mean(ap),
    )


def _mended(columns: Columns, errors: Errors, kind: ErrorKind, found: Flags) -> tuple[Flags, Flags]:
    """(N,) detections of a kind that a repair makes right, and those that it removes.

    Of the detections about an object, the best becomes right, unless the object has been found.
    """
    rows = np.flatnonzero(errors.of(kind))
    rows = rows[np.argsort(-columns.found.scores[rows], kind="stable")]
    targets = errors.targets[rows]
    first = np.zeros(len(rows), np.bool_)
    first[np.unique(targets, return_index=True)[1]] = True
    first &= ~found[targets]
    mended, removed = np.zeros(len(columns.found), np.bool_), np.zeros(len(columns.found), np.bool_)
    mended[rows[first]], removed[rows[~first]] = True, True
    return mended, removed


def _ap(ranking: Ranking, right: Flags, counted: Flags, objects: Floats) -> Floats:
    return average_precisions(ranking, right[None], counted[None], objects)[0]
