"""Contract checks of evaluators."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from det_core.contracts import DetectionDataset, EvaluationResult, Sample
from det_core.evaluation.class_labels import class_names
from det_core.slots import EvaluatorConfig
from det_core.structures import Detections
from det_core.testing.config_checks import check_config, equal, who
from det_core.testing.tiny_dataset import TinyDataset, perfect_detections

COLUMNS = 80  # of a table in a terminal


def check_evaluator(config: EvaluatorConfig) -> None:
    """Check an evaluator's records and metrics: without detections, with perfect ones, in any order of images.

    Images are encoded by one evaluator and computed by another, as on several ranks.
    """
    check_config(config)
    dataset = TinyDataset()
    samples = [dataset.load(index) for index in range(len(dataset))]
    found = [perfect_detections(sample) for sample in samples]
    nothing = [detections[torch.zeros(0, dtype=torch.int64)] for detections in found]
    none, perfect = (_records(config, dataset, samples, every) for every in (nothing, found))
    results = {
        "no records": _computed(config, dataset, []),
        "images without detections": _computed(config, dataset, none),
        "perfect detections": _computed(config, dataset, perfect),
    }
    for what, result in results.items():
        _check_result(config, dataset, what, result)
    metrics = results["perfect detections"].metrics
    for what, result in results.items():
        equal(config, f"names of metrics of {what}", sorted(result.metrics), sorted(metrics))
    changed = not _same_metrics(metrics, results["no records"].metrics)
    assert changed, f"{who(config)}: its metrics do not depend on the detections"
    backwards = _computed(config, dataset, _records(config, dataset, samples[::-1], found[::-1]))
    same = _same_metrics(metrics, backwards.metrics)
    assert same, f"{who(config)}: its metrics depend on the order of the images, which differs with ranks"


def _records(
    config: EvaluatorConfig, dataset: DetectionDataset, samples: Sequence[Sample], found: Sequence[Detections]
) -> list[dict[str, Any]]:
    """The records of all images, after the way through JSON that those of other ranks take."""
    evaluator, records = config.build(dataset), []
    for sample, detections in zip(samples, found, strict=True):
        records += evaluator.encode(sample.image_id, detections)
    try:
        text = json.dumps(records)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{who(config)}: encode() gives records that are no JSON: {error}") from error
    again: list[dict[str, Any]] = json.loads(text)
    return again


def _computed(config: EvaluatorConfig, dataset: DetectionDataset, records: list[dict[str, Any]]) -> EvaluationResult:
    result = config.build(dataset).compute(records)
    assert isinstance(result, EvaluationResult), (
        f"{who(config)}: compute() gives {type(result).__name__}, not EvaluationResult"
    )
    return result


def _check_result(config: EvaluatorConfig, dataset: DetectionDataset, what: str, result: EvaluationResult) -> None:
    names = config.metric_names()
    assert result.metrics, f"{who(config)}: no metrics of {what}"
    if names is not None:
        equal(config, f"names of metrics of {what}", sorted(result.metrics), sorted(names))
    unknown = sorted(result.per_class.keys() - set(class_names(dataset)))
    assert not unknown, f"{who(config)}: per_class has {unknown}, which are no names of classes"
    for name, value in (
        *result.metrics.items(),
        *((n, v) for row in result.per_class.values() for n, v in row.items()),
    ):
        good = isinstance(value, float) and (math.isnan(value) or 0 <= value <= 1)
        assert good, f"{who(config)}: {name} of {what} is {value!r}, expected a fraction of 1, or nan"
    wide = [line for line in result.table.splitlines() if len(line) > COLUMNS]
    assert not wide, f"{who(config)}: its table has lines of more than {COLUMNS} columns: {wide[0]!r}"


def _same_metrics(one: Mapping[str, float], two: Mapping[str, float]) -> bool:
    return one.keys() == two.keys() and all(
        math.isclose(value, two[name], abs_tol=1e-9) or (math.isnan(value) and math.isnan(two[name]))
        for name, value in one.items()
    )
