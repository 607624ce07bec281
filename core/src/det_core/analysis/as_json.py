"""The numbers of a report as plain data for JSON: null in place of nan, fractions, thresholds as scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from det_core.analysis.analyse import Analysis
from det_core.analysis.average_precision import mean
from det_core.analysis.compare_runs import Comparison, Difference
from det_core.analysis.errors import KINDS
from det_core.analysis.image_errors import Case, LabelChecks, counts_of, errors_by_class
from det_core.analysis.matching import HALF, THRESHOLDS
from det_core.analysis.report import Report
from det_core.analysis.score_curves import ScoreCurve

IOU75 = 5  # position in THRESHOLDS
SIZES = ("small", "medium", "large")


def report_numbers(report: Report) -> dict[str, Any]:
    """All numbers of a report, and for each image and entry of a confusion matrix the ids of the data set."""
    runs = [
        {"name": run.name, "metrics": run.metrics, **{kind: analysis_numbers(a) for kind, a in analyses.items()}}
        for run, analyses in zip(report.runs, report.analyses, strict=True)
    ]
    plain: dict[str, Any] = {
        "dataset": report.dataset.name,
        "images": len(report.dataset),
        "summary": summary(report.main),
        "runs": runs,
        "check_these_labels": _checks(report.checks, report.main),
    }
    if report.proposals is not None:
        plain["proposals"] = {
            "numbers": list(report.proposals.numbers),
            "iou_thresholds": list(THRESHOLDS),
            "recall": report.proposals.recall.tolist(),
            "average_recall": report.proposals.average.tolist(),
        }
    if report.comparison is not None:
        plain["comparison"] = _comparison(report.comparison, report.main)
    finite: dict[str, Any] = _finite(plain)
    return finite


def summary(analysis: Analysis) -> dict[str, Any]:
    """The numbers that describe a run: AP, the best threshold with precision, recall and F1, what errors cost."""
    precision, recall, f1 = analysis.curve.at(analysis.threshold)
    return {
        "AP": mean(analysis.ap.mean(0)),
        "AP50": mean(analysis.ap[HALF]),
        "AP75": mean(analysis.ap[IOU75]),
        "threshold": analysis.threshold,
        "best_threshold": analysis.curve.threshold,
        "precision": precision,
        "recall": recall,
        "F1": f1,
        "calibration_error": analysis.calibration.error,
        "AP50_lost": {kind: analysis.costs.total(kind) for kind in KINDS},
    }


def analysis_numbers(analysis: Analysis) -> dict[str, Any]:
    """The numbers of the boxes or masks of one run."""
    costs, counts = analysis.costs, errors_by_class(analysis.columns, analysis.errors)
    per_image = counts_of(analysis.columns, analysis.matches, analysis.threshold)
    sizes = analysis.breakdowns[0].parts
    return {
        "iou_thresholds": list(THRESHOLDS),
        "ap_by_iou": [mean(row) for row in analysis.ap],
        "threshold": analysis.threshold,
        "best_threshold": analysis.curve.threshold,
        "classes": [
            {
                "name": name,
                "objects": int(analysis.objects[k]),
                "images": int(analysis.images[k]),
                "detections": int(analysis.detections[k]),
                "ap": float(analysis.ap[:, k].mean()),
                "ap50": float(analysis.ap[HALF, k]),
                "ap75": float(analysis.ap[IOU75, k]),
                **{f"ap_{size}": float(part.by_class[k]) for size, part in zip(SIZES, sizes, strict=True)},
                **_best(analysis.curves[k]),
                "ap50_lost": {kind: float(costs.by_kind[row, k]) for row, kind in enumerate(KINDS)},
                "errors": {kind: int(counts[row, k]) for row, kind in enumerate(KINDS)},
            }
            for k, name in enumerate(analysis.columns.classes)
        ],
        "errors": {kind: {"ap50_lost": costs.total(kind), "count": analysis.errors.count(kind)} for kind in KINDS},
        "false_positives_ap50_lost": costs.false_positives,
        "false_negatives_ap50_lost": costs.false_negatives,
        "confusion": _confusion(analysis),
        "calibration": {
            "error": analysis.calibration.error,
            "edges": analysis.calibration.edges.tolist(),
            "counts": analysis.calibration.counts.tolist(),
            "scores": analysis.calibration.scores.tolist(),
            "precision": analysis.calibration.precision.tolist(),
        },
        "parts": {
            breakdown.name: [
                {
                    "name": part.name,
                    "ap": part.ap,
                    "ap50": part.ap50,
                    "recall": part.recall,
                    "objects": int(part.objects.sum()),
                }
                for part in breakdown.parts
            ]
            for breakdown in analysis.breakdowns
        },
        "images": {
            "ids": analysis.columns.images.ids.tolist(),
            "right": per_image.right.tolist(),
            "wrong": per_image.wrong.tolist(),
            "missed": per_image.missed.tolist(),
        },
    }


def _best(curve: ScoreCurve) -> dict[str, float | None]:
    values = curve.at_best() or (None, None, None)
    return {
        "best_threshold": curve.threshold,
        **dict(zip(("precision", "recall", "f1"), values, strict=True)),
    }


def _confusion(analysis: Analysis) -> dict[str, Any]:
    """The cells that are not zero. `background` as a truth: nothing is there; as detected: nothing is found."""
    names = [*analysis.columns.classes, "background"]
    rows, columns = np.nonzero(analysis.confusion.counts)
    return {
        "threshold": analysis.confusion.threshold,
        "cells": [
            {"truth": names[r], "detected": names[c], "count": int(analysis.confusion.counts[r, c])}
            for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
        ],
    }


def _checks(checks: LabelChecks, analysis: Analysis) -> dict[str, Any]:
    def plain(case: Case) -> dict[str, Any]:
        columns = analysis.columns
        result: dict[str, Any] = {"image_id": int(columns.images.ids[case.image])}
        if case.found >= 0:
            result["detected"] = columns.classes[columns.found.labels[case.found]]
            result["score"], result["box"] = case.weight, columns.found.boxes[case.found].tolist()
        if case.object >= 0:
            result["annotated"] = columns.classes[columns.objects.labels[case.object]]
            result["annotated_box"] = columns.objects.boxes[case.object].tolist()
        return result

    return {
        "unlabelled": [plain(case) for case in checks.unlabelled],
        "other_class": [plain(case) for case in checks.other_class],
        "never_found": [plain(case) for case in checks.never_found],
    }


def _comparison(comparison: Comparison, analysis: Analysis) -> dict[str, Any]:
    def plain(difference: Difference) -> dict[str, float]:
        return {
            "a": difference.a,
            "b": difference.b,
            "difference": difference.value,
            "low": difference.low,
            "high": difference.high,
        }

    return {
        "resamples": comparison.resamples,
        "ap": plain(comparison.ap),
        "ap50": plain(comparison.ap50),
        "classes": [
            {"name": name, "a": a, "b": b}
            for name, (a, b) in zip(analysis.columns.classes, comparison.classes, strict=True)
        ],
        "images": {
            "ids": analysis.columns.images.ids.tolist(),
            "f1_a": comparison.f1_a.tolist(),
            "f1_b": comparison.f1_b.tolist(),
        },
    }


def _finite(value: Any) -> Any:
    """Plain data with None for nan."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
