"""Kinds of errors: cases worked out by hand, and the AP that each costs against pycocotools on repaired data."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from made_data import MadeDataset, Record, box, pycocotools_precision, random_case

from det_core.analysis.analyse import Analysis, analyse
from det_core.analysis.errors import KINDS, RIGHT
from det_core.analysis.matching import HALF
from det_core.analysis.names import DESCRIPTIONS, ErrorKind

OBJECT = (50, 50, 90, 90)
HALF_ON = (50, 50, 70, 90)  # IoU .50
LESS_ON = (50, 50, 69, 90)  # IoU .475
AWAY = (150, 150, 190, 190)
BARELY = (50, 86, 90, 126)  # IoU 1/19
CLIPPED = (50, 82, 90, 122)  # IoU 1/9


def kinds(records: list[Record], truth: list[Record] | None = None) -> list[str]:
    dataset = MadeDataset([box(1, 0, OBJECT)] if truth is None else truth, images=2)
    result = analyse(dataset, records)
    return ["right or ignored" if k == RIGHT else KINDS[k] for k in result.errors.kinds]


@pytest.mark.parametrize(
    ("label", "place", "kind"),
    [
        (0, OBJECT, "right or ignored"),
        (0, HALF_ON, "right or ignored"),
        (0, LESS_ON, "localisation"),
        (0, CLIPPED, "localisation"),
        (0, BARELY, "background"),
        (0, AWAY, "background"),
        (1, OBJECT, "classification"),
        (1, HALF_ON, "classification"),
        (1, LESS_ON, "both"),
        (1, CLIPPED, "both"),
        (1, BARELY, "background"),
        (1, AWAY, "background"),
    ],
)
def test_a_single_detection(label: int, place: tuple[int, int, int, int], kind: str):
    assert kinds([box(1, label, place, score=0.9)]) == [kind]


def test_a_second_detection_of_an_object_is_a_duplicate():
    assert kinds([box(1, 0, OBJECT, score=0.9), box(1, 0, OBJECT, score=0.8)]) == ["right or ignored", "duplicate"]


def test_the_better_scored_detection_is_right_even_if_it_is_placed_worse():
    assert kinds([box(1, 0, OBJECT, score=0.8), box(1, 0, HALF_ON, score=0.9)]) == ["right or ignored", "duplicate"]


def test_ignored_objects_neither_count_nor_explain_errors():
    crowd = box(1, 0, OBJECT, iscrowd=1)
    assert kinds([box(1, 0, OBJECT, score=0.9), box(1, 0, OBJECT, score=0.8)], [crowd]) == ["right or ignored"] * 2
    assert kinds([box(1, 1, OBJECT, score=0.9)], [crowd]) == ["background"]


def test_missed_objects_are_those_without_a_wrong_detection_about_them():
    truth = [box(1, 0, OBJECT), box(1, 1, AWAY), box(2, 2, OBJECT), box(2, 0, AWAY, iscrowd=1)]
    found = [box(1, 0, LESS_ON, score=0.5), box(1, 0, AWAY, score=0.4)]
    errors = analyse(MadeDataset(truth, images=2), found).errors
    assert errors.missed.tolist() == [False, False, True, False]
    assert {kind: errors.count(kind) for kind in KINDS if errors.count(kind)} == {
        "classification": 1,
        "localisation": 1,
        "missed": 1,
    }


def test_costs_by_hand():
    """One class. By score: background, right, badly placed; two objects."""
    truth = [box(1, 0, OBJECT), box(2, 0, OBJECT)]
    found = [box(1, 0, AWAY, score=0.9), box(1, 0, OBJECT, score=0.8), box(2, 0, LESS_ON, score=0.7)]
    costs = analyse(MadeDataset(truth, images=2), found).costs
    half = 51 / 101  # recall levels 0 to .50
    assert costs.mean_ap == pytest.approx(half * 1 / 2)
    assert costs.repaired["background"] == pytest.approx(half)
    assert costs.repaired["localisation"] == pytest.approx(2 / 3)  # precision 1/2, then 2/3, and so 2/3 at every level
    for kind in ("classification", "both", "duplicate", "missed"):
        assert costs.total(kind) == 0
    assert costs.false_positives == pytest.approx(half - half / 2)
    assert costs.false_negatives == pytest.approx(1 / 2 - half / 2)


@pytest.mark.parametrize("region", ["box", "mask"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_costs_are_the_gain_of_a_repair(seed: int, kind: ErrorKind, region: Any):
    """The data themselves are repaired and evaluated by pycocotools."""
    dataset, records = random_case(seed)
    result = analyse(dataset, records, region)
    repaired, found = _repaired(dataset, records, result, kind)
    expected = pycocotools_precision(repaired, found, region)[HALF]
    assert result.costs.repaired[kind] == pytest.approx(np.nanmean(expected), abs=1e-9)
    assert result.errors.count(kind) > 0


def test_false_positives_and_negatives_are_the_gain_of_a_repair():
    dataset, records = random_case(3)
    result = analyse(dataset, records)
    rows = _rows(result, records)
    without = [r for r, wrong in zip(rows, result.matches.wrong(), strict=True) if not wrong]
    gain = np.nanmean(pycocotools_precision(dataset, without)[HALF]) - result.costs.mean_ap
    assert result.costs.false_positives == pytest.approx(gain)
    found = result.matches.found(len(dataset.records))
    objects = sorted(dataset.records, key=lambda r: r["image_id"])
    left = [r for r, seen in zip(objects, found, strict=True) if seen or r["iscrowd"]]
    gain = np.nanmean(pycocotools_precision(MadeDataset(left, 12), records)[HALF]) - result.costs.mean_ap
    assert result.costs.false_negatives == pytest.approx(gain)


def test_every_kind_is_described():
    assert tuple(DESCRIPTIONS) == KINDS


def _rows(result: Analysis, records: list[Record]) -> list[Record]:
    """The records in the order of the columns."""
    by_score = {record["score"]: record for record in records}
    return [by_score[score] for score in result.columns.found.scores.tolist()]


def _repaired(
    dataset: MadeDataset, records: list[Record], result: Analysis, kind: ErrorKind
) -> tuple[MadeDataset, list[Record]]:
    """The data set and the detections once the errors of a kind are repaired."""
    objects = sorted(dataset.records, key=lambda r: r["image_id"])
    errors, rows = result.errors, _rows(result, records)
    if kind == "missed":
        return MadeDataset([o for o, m in zip(objects, errors.missed, strict=True) if not m], 12), records
    of_kind = errors.of(kind)
    kept = [row for row, wrong in zip(rows, of_kind, strict=True) if not wrong]
    if kind in ("localisation", "classification"):
        taken = set(np.flatnonzero(result.matches.found(len(objects))).tolist())
        about = [(row, int(t)) for row, t, w in zip(rows, errors.targets, of_kind, strict=True) if w]
        for row, target in sorted(about, key=lambda pair: -pair[0]["score"]):
            if target not in taken:
                taken.add(target)
                place = {name: objects[target][name] for name in ("bbox", "segmentation")}
                change = place if kind == "localisation" else {"category_id": objects[target]["category_id"]}
                kept.append({**row, **change})
    return dataset, kept


def test_an_analysis_changes_neither_truth_nor_detections():
    dataset, records = random_case(1)
    before = copy.deepcopy((dataset.records, records))
    analyse(dataset, records)
    assert (dataset.records, records) == before
