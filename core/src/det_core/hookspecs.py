"""Every extension point of `det`, one function each.

A plugin is a module (or object) that an entry point of the group `det_core.plugins` names. It implements hooks as
functions with these names, marked `@hookimpl`, or made by `provides` from the parts to return. Component hooks are
called once, when plugins are first listed. They return configuration classes and must not import torch. If two
components of a slot have the same `type`, neither is used, and the error names both distributions. If a hook raises,
the plugin loses only what that hook provides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from det_core import slots
    from det_core.offers import CheckpointSource, CommandEntry, RecipeEntry, WeightMap
    from det_core.recipe import Recipe
    from det_core.settings import Component

PROJECT = "det_core"
ENTRY_POINT_GROUP = "det_core.plugins"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

T = TypeVar("T")


def provides(*parts: T) -> Callable[[], Sequence[T]]:
    """An implementation of a hook that returns these parts: `det_necks = provides(FPNConfig)`."""
    return hookimpl(lambda: parts)


@hookspec
def det_backbones() -> Sequence[type[slots.BackboneConfig]]:
    """Config classes of backbones: images to feature maps."""


@hookspec
def det_necks() -> Sequence[type[slots.NeckConfig]]:
    """Config classes of necks: feature maps to feature maps."""


@hookspec
def det_heads() -> Sequence[type[Component]]:
    """Config classes of heads: dense, proposal, RoI, box and mask heads, and RoI trunks."""


@hookspec
def det_losses() -> Sequence[type[slots.LossConfig]]:
    """Config classes of losses."""


@hookspec
def det_layers() -> Sequence[type[Component]]:
    """Config classes of layers that other plugins' modules use: norm, convolution, RoI pooling."""


@hookspec
def det_targets() -> Sequence[type[Component]]:
    """Config classes of anchor generators, box coders, assigners and samplers."""


@hookspec
def det_datasets() -> Sequence[type[slots.DatasetConfig]]:
    """Config classes of data sets."""


@hookspec
def det_transforms() -> Sequence[type[slots.TransformConfig]]:
    """Config classes of image transforms."""


@hookspec
def det_evaluators() -> Sequence[type[slots.EvaluatorConfig]]:
    """Config classes of metrics."""


@hookspec
def det_optimizers() -> Sequence[type[slots.OptimizerConfig]]:
    """Config classes of optimisers."""


@hookspec
def det_schedules() -> Sequence[type[slots.LearningRateConfig]]:
    """Config classes of learning-rate schedules: a factor on the learning rate as a function of the step."""


@hookspec
def det_recipes() -> Sequence[RecipeEntry]:
    """Zoo entries: a name, the distributions it requires, a function that makes the recipe, published figures.

    Listing entries must be fast: the function is called only when its recipe is used.
    """


@hookspec
def det_weight_maps() -> Sequence[WeightMap]:
    """How other projects' checkpoints map onto this plugin's components, one map per component and source."""


@hookspec
def det_checkpoint_sources() -> Sequence[CheckpointSource]:
    """Where addresses `SCHEME://...` of checkpoints lead: a scheme, and a function that fetches the checkpoint.

    If two plugins provide a scheme, neither is used.
    """


@hookspec
def det_commands() -> Sequence[CommandEntry]:
    """Commands of `det-core`: a name, a line of help, and a function that imports the click command.

    If two plugins provide a name, neither is used. The names of core's own commands are refused.
    """


@hookspec
def det_run_started(recipe: Recipe, work_dir: Path, step: int, say: Callable[[str], None]) -> None:
    """A training run starts (on rank 0, after everything is built). A hook that raises is switched off for the run.

    step: 0, or the steps already trained if the run is resumed. say: prints a line for the user.
    """


@hookspec
def det_step_finished(step: int, metrics: dict[str, float]) -> None:
    """A step was logged: losses under `loss/...`, learning rate under `lr`, seconds under `time/...`."""


@hookspec
def det_evaluated(step: int, metrics: dict[str, float]) -> None:
    """An evaluation finished: the metrics by name (`box_ap`, ...), also those of each class (`box_ap/person`)."""


@hookspec
def det_checkpoint_saved(step: int, checkpoint: Path) -> None:
    """A checkpoint was saved, complete: its folder. Those that are neither new nor the best are removed later."""


@hookspec
def det_run_finished(step: int, reason: str, best: Path | None) -> None:
    """A training run ended: `finished`, `stopped` (SIGTERM, max steps) or `failed`. Curves and pictures are drawn.

    best: the folder of the best checkpoint; None if there was no evaluation.
    """


# The slots that each component hook may return classes of.
COMPONENT_HOOKS = {
    "det_backbones": ("backbone",),
    "det_necks": ("neck",),
    "det_heads": ("dense_head", "roi_head", "box_head", "mask_head", "trunk"),
    "det_losses": ("loss",),
    "det_layers": ("norm", "conv", "roi_pool"),
    "det_targets": ("anchors", "coder", "assigner", "sampler"),
    "det_datasets": ("dataset",),
    "det_transforms": ("transform",),
    "det_evaluators": ("evaluator",),
    "det_optimizers": ("optimizer",),
    "det_schedules": ("learning_rate",),
}
RUN_HOOKS = ("det_run_started", "det_step_finished", "det_evaluated", "det_checkpoint_saved", "det_run_finished")
