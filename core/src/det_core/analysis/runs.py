"""Runs to analyse: from a checkpoint, or from detections in a file."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from det_core.analysis.columns import Kind
from det_core.analysis.report import Run
from det_core.contracts import DetectionDataset
from det_core.engine.checkpoint import load_detector, weights_file
from det_core.engine.detection_recorder import DetectionRecorder
from det_core.engine.distributed import choose_device
from det_core.engine.evaluate import Evaluation, evaluate
from det_core.engine.evaluate_predictions import evaluate_predictions, read_predictions
from det_core.evaluation.metric_config import CocoEvaluatorConfig
from det_core.recipe import Recipe
from det_core.settings import evolve
from det_core.slots import EvaluatorConfig

LIMIT = 100  # detections per class in an image, where no evaluator says otherwise


def detect_run(
    checkpoint: str | Path,
    recipe: Recipe,
    dataset: DetectionDataset,
    *,
    name: str,
    device: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Run:
    """Detect on a data set with a checkpoint, as `det-core test` does.

    Args:
        checkpoint: a run folder, a checkpoint, or a `.safetensors` file.
        recipe: the checkpoint's, with the data set's transforms and evaluators.
        dataset: with the detector's classes.
        name: of the run.
        device: `cpu`, `cuda`, `cuda:N` or `mps`; by default the GPU if there is one.
        progress: called with the number of finished images and of all.

    Raises:
        DetError: as `load_detector` and `evaluate`.
    """
    recorder = DetectionRecorder(dataset)
    result = evaluate(
        load_detector(weights_file(checkpoint), choose_device(device), recipe=recipe),
        dataset,
        evaluators=recipe.evaluation.evaluators,
        transforms=recipe.data.test_transforms,
        workers=recipe.data.workers,
        precision=recipe.schedule.precision,
        recorder=recorder,
        progress=progress,
    )
    command = f"--checkpoint {shlex.quote(str(checkpoint))}"
    return Run(name, recorder.records, _finite(result), command, recipe.published)


def read_run(path: Path, dataset: DetectionDataset, evaluators: Sequence[EvaluatorConfig], *, name: str) -> Run:
    """Read detections on a data set, and compute the metrics for which they suffice.

    Raises:
        DetError: as `read_predictions` and `evaluate_predictions`.
    """
    recorder = DetectionRecorder(dataset)
    predictions = read_predictions(path, dataset)
    if not all(found.has_masks for found in predictions.found.values()):
        evaluators = [without for evaluator in evaluators if (without := _without_masks(evaluator)) is not None]
    result = evaluate_predictions(dataset, predictions, evaluators, recorder)
    return Run(name, recorder.records, _finite(result))


def _without_masks(evaluator: EvaluatorConfig) -> EvaluatorConfig | None:
    """The evaluator without metrics of masks; None if it has no others."""
    if isinstance(evaluator, CocoEvaluatorConfig):
        kinds = tuple(kind for kind in evaluator.kinds if kind != "mask")
        return evolve(evaluator, kinds=kinds) if kinds else None
    return None if evaluator.needs_masks() else evaluator


def kinds_of(dataset: DetectionDataset, runs: Sequence[Run]) -> tuple[Kind, ...]:
    """Boxes, and masks if the data set and every detection have them."""
    has_masks = dataset.has_masks and all(_with_masks(run.records) for run in runs)
    return ("box", "mask") if has_masks else ("box",)


def _with_masks(records: Sequence[dict[str, Any]]) -> bool:
    return bool(records) and all("segmentation" in record for record in records)


def limit_of(evaluators: Sequence[EvaluatorConfig]) -> int:
    """The maximum number of detections per class in an image that evaluators look at."""
    return max((e.max_detections for e in evaluators if isinstance(e, CocoEvaluatorConfig)), default=LIMIT)


def proposes(evaluators: Sequence[EvaluatorConfig]) -> bool:
    """Whether a run proposes boxes of no class: its evaluators look at proposals alone."""
    kinds = [kind for e in evaluators if isinstance(e, CocoEvaluatorConfig) for kind in e.kinds]
    return bool(kinds) and set(kinds) == {"proposal"}


def _finite(result: Evaluation) -> dict[str, float]:
    return {name: value for name, value in result.metrics.items() if math.isfinite(value)}
