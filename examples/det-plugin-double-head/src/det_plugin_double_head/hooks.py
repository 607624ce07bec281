"""Hooks of this plugin: a backbone, a RoI head, a recipe, and a journal of each run. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from det_core.hookspecs import hookimpl
from det_core.offers import RecipeEntry
from det_core.recipe import Recipe
from det_core.settings import Component
from det_core.slots import BackboneConfig

from det_plugin_double_head.config import DoubleHeadConfig, PlainNetConfig
from det_plugin_double_head.journal import Journal
from det_plugin_double_head.recipes import ENTRIES

_journal = Journal()


@hookimpl
def det_backbones() -> Sequence[type[BackboneConfig]]:
    return [PlainNetConfig]


@hookimpl
def det_heads() -> Sequence[type[Component]]:
    return [DoubleHeadConfig]


@hookimpl
def det_recipes() -> Sequence[RecipeEntry]:
    return ENTRIES


@hookimpl
def det_run_started(recipe: Recipe, work_dir: Path) -> None:
    _journal.begin(recipe.name, work_dir)


@hookimpl
def det_evaluated(step: int, metrics: dict[str, float]) -> None:
    _journal.evaluated(step, metrics)


@hookimpl
def det_run_finished(step: int, reason: str) -> None:
    _journal.end(step, reason)
