"""Every extension point of `det`, one function each.

A plugin is a module (or object) named by an entry point of the group `det_core.plugins`, with functions marked
`@hookimpl` that bear these names. Component hooks are called once, when plugins are listed for the first time; they
return configuration classes and must not import torch. Two components of one slot with the same `type` are both
refused, with the distributions named. A hook that raises costs its plugin what that hook would have provided, nothing
else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from det_core.config import base
    from det_core.recipe import Recipe, RecipeEntry
    from det_core.weights import WeightMap

PROJECT = "det_core"
ENTRY_POINT_GROUP = "det_core.plugins"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def det_backbones() -> Sequence[type[base.BackboneConfig]]:
    """Config classes of backbones: images to feature maps."""


@hookspec
def det_necks() -> Sequence[type[base.NeckConfig]]:
    """Config classes of necks: feature maps to feature maps."""


@hookspec
def det_heads() -> Sequence[type[base.Component]]:
    """Config classes of heads: dense, proposal, RoI, box and mask heads, and RoI trunks."""


@hookspec
def det_losses() -> Sequence[type[base.LossConfig]]:
    """Config classes of losses."""


@hookspec
def det_layers() -> Sequence[type[base.Component]]:
    """Config classes of layers that other plugins' modules take: norm, convolution, RoI pooling."""


@hookspec
def det_targets() -> Sequence[type[base.Component]]:
    """Config classes of anchor generators, box coders, assigners and samplers."""


@hookspec
def det_datasets() -> Sequence[type[base.DatasetConfig]]:
    """Config classes of data sets."""


@hookspec
def det_transforms() -> Sequence[type[base.TransformConfig]]:
    """Config classes of image transforms."""


@hookspec
def det_evaluators() -> Sequence[type[base.EvaluatorConfig]]:
    """Config classes of metrics."""


@hookspec
def det_recipes() -> Sequence[RecipeEntry]:
    """Zoo entries: a name, the distributions it requires, a function that makes the recipe, published figures.

    Listing entries must be cheap: the function is called only when its recipe is asked for.
    """


@hookspec
def det_weight_maps() -> Sequence[WeightMap]:
    """How other projects' checkpoints map onto this plugin's components, one map per component and source."""


@hookspec
def det_run_started(recipe: Recipe, work_dir: Path) -> None:
    """A training run begins (on rank 0, after everything is built). A hook that raises is switched off for the run."""


@hookspec
def det_step_finished(step: int, metrics: dict[str, float]) -> None:
    """A step was logged: losses under `loss/...`, learning rate under `lr`, seconds under `time/...`."""


@hookspec
def det_evaluated(step: int, metrics: dict[str, float]) -> None:
    """An evaluation finished: the metrics by name (`box_ap`, `mask_ap50`, ...)."""


@hookspec
def det_run_finished(step: int, reason: str) -> None:
    """A training run ended: `finished`, `stopped` (SIGTERM, max steps) or `failed`."""


COMPONENT_HOOKS = (
    "det_backbones",
    "det_necks",
    "det_heads",
    "det_losses",
    "det_layers",
    "det_targets",
    "det_datasets",
    "det_transforms",
    "det_evaluators",
)
RUN_HOOKS = ("det_run_started", "det_step_finished", "det_evaluated", "det_run_finished")
