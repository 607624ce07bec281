"""The analysis of a run that has just been trained, in its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from det_core.analysis.runs import detect_run
from det_core.analysis.write import write_analysis
from det_core.contracts import DetectionDataset
from det_core.errors import DetError
from det_core.optional_packages import require
from det_core.recipe import Recipe
from det_core.run_folder import ANALYSIS


def check_analysis(recipe: Recipe) -> None:
    """Raise DetError, before training, if its analysis could not follow."""
    if not recipe.data.has_validation():
        raise DetError("analyze: the recipe has no validation data to analyze on; set `data.val`, or do not analyze")
    require("matplotlib", "analyze", "plots")


def analyze_training(
    run: Path, recipe: Recipe, dataset: DetectionDataset, device: str, say: Callable[[str], None]
) -> None:
    """Analyze a run's best checkpoint on its validation data; what goes wrong is told, since the run itself is done."""
    try:
        found = detect_run(run, recipe, dataset, name=run.name, device=device)
        page = write_analysis(dataset, [found], recipe.evaluation.evaluators, run / ANALYSIS, say=say)
        say(f"analysis: {page}")
    except DetError as error:
        say(f"no analysis: {error}")
