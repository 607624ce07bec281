"""Train a recipe: set-up, loop and report put together."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from det_core.engine.distributed import World, barrier, join, leave
from det_core.engine.run_lock import locked
from det_core.engine.train_options import TrainOptions
from det_core.engine.training_loop import TrainingLoop
from det_core.engine.training_setup import set_up
from det_core.model.detector import Detector
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe
from det_core.reports.training_report import TrainingReport
from det_core.settings import with_settings


@frozen(kw_only=True)
class TrainResult:
    """How a run ended. reason: `finished` or `stopped`. metrics: of the last evaluation, fractions of 1."""

    reason: str
    step: int
    metrics: dict[str, float]
    work_dir: Path
    detector: Detector


@with_settings(TrainOptions)
def train(recipe: Recipe, options: TrainOptions) -> TrainResult:
    """Train a recipe, evaluate it as it says, and leave everything in the run folder.

    `load_recipe` reads a recipe. In place of the bundled sample, `data` is a folder in a format that is found there.

    Raises:
        PluginError: for a part that no plugin provides and that is not registered.
        DetError: for bad data, a folder in use, weights that do not fit, a loss that is not finite, or another rank or
            a loader process that has ended or does not answer.
    """
    if options.data is not None:
        recipe = recipe.with_data(options.data)
    if options.analyze:
        from det_core.analysis.after_training import check_analysis

        check_analysis(recipe)
    plugin_manager().check_registered(recipe)
    recipe = recipe.settled()
    world = join(options.device, options.timeout)
    try:
        with locked(Path(options.work_dir), world):
            return _train(recipe, options, world)
    finally:
        leave(world)


def _train(recipe: Recipe, options: TrainOptions, world: World) -> TrainResult:
    report = TrainingReport(options, world)
    setup = set_up(recipe, options, world, report.say)
    loop, reason = TrainingLoop(setup, report), "failed"
    report.begin(setup)
    barrier(world, "the first files of the run")
    try:
        metrics, reason = loop.run()
    finally:
        report.end(loop.step, reason)
    report.leave(loop.step, reason)
    barrier(world, "the end of the run")
    return TrainResult(
        reason=reason, step=loop.step, metrics=metrics, work_dir=setup.run, detector=setup.trained.judged
    )
