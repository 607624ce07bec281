"""What a run says of itself before it begins: to the user in a few lines, and for the record in `run.json`."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import torch

from det_core.contracts import DetectionDataset
from det_core.engine.distributed import World
from det_core.engine.learning_rate import LearningRate
from det_core.engine.parameter_groups import describe
from det_core.engine.training_state import Trained
from det_core.errors import counted
from det_core.model.detector import Detector
from det_core.plugin_file import plugin_files
from det_core.plugins import plugin_manager
from det_core.recipe import Recipe


def greeting(
    recipe: Recipe,
    trained: Trained,
    data: tuple[DetectionDataset, DetectionDataset | None],
    rate: LearningRate,
    total_batch: int,
    world: World,
) -> str:
    """Recipe, data with all that is left out of it, schedule, learning rates and plugins; a line each."""
    train_data, val_data = data
    schedule, optimizer, detector = recipe.schedule, recipe.optimizer, trained.detector
    count = sum(p.numel() for p in detector.parameters())
    scaled = f"batch {total_batch} / {optimizer.lr_batch}" if optimizer.lr_batch else "not scaled"
    lines = [
        f"recipe {recipe.name}: {count / 1e6:.1f} M parameters, {len(detector.classes)} classes",
        f"data: {train_data.name}, {len(train_data)} images; {_validation(val_data)}",
        f"schedule: {schedule.epochs} epochs of {rate.steps_per_epoch} steps of {total_batch} images, "
        f"seed {schedule.seed}, {schedule.precision} on {world.size} x {world.device}",
        f"learning rate: {schedule.learning_rate.type}, base {rate.base:g}, effective {rate.effective:g} ({scaled})",
        f"plugins: {', '.join(f'{name} {version}' for name, version in plugin_manager().versions().items())}",
    ]
    groups = describe(trained.optimizer.param_groups)
    notes = dict.fromkeys(line for dataset in data if dataset is not None for line in _left_out(dataset))
    return "\n".join([*lines, *groups, *notes])


def _validation(data: DetectionDataset | None) -> str:
    if data is None:
        return (
            "no validation data, so training does not evaluate (--set data.val_fraction=0.1 validates on a tenth of "
            "the images)"
        )
    return f"{data.name}, {len(data)}"


def _left_out(data: DetectionDataset) -> Iterator[str]:
    """A line for each rule by which images or annotations do not take part, and for each bad one."""
    if data.filtered:
        yield f"{data.name}: {data.filtered} images left out by filter_empty and min_size"
    for what, count in data.dropped.items():
        yield f"{data.name}: {counted(count, 'annotation')} left out of training: {what}"
    yield from data.notes
    for bad in data.skipped:
        yield f"left out: {bad}"


def facts(recipe: Recipe, detector: Detector, world: World) -> dict[str, object]:
    """What the recipe does not say: classes, plugins and versions, processes."""
    return {
        "recipe": recipe.name,
        "classes": {"names": detector.classes.names, "ids": detector.classes.ids},
        "plugins": plugin_manager().versions(),
        "registered": plugin_manager().unpackaged(recipe),
        "plugin_files": plugin_files(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(world.device),
        "processes": world.size,
        "seed": recipe.schedule.seed,
    }
