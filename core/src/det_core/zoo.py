"""What plugins make the entries of their zoo with: tables of published baselines, and demos. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from det_core.data.config import FlipConfig, ResizeConfig, SampleConfig
from det_core.model.detector_config import DetectorConfig
from det_core.offers import RecipeEntry
from det_core.recipe import DataConfig, EvaluationConfig, OptimizerConfig, Published, Recipe, ScheduleConfig


class PublishedRow(Protocol):
    """A row of a table of published baselines: the name of its recipe, and its figures."""

    @property
    def name(self) -> str: ...
    @property
    def published(self) -> Published: ...


RowT = TypeVar("RowT", bound=PublishedRow)


def zoo_entries(
    rows: Sequence[RowT],
    make: Callable[[RowT], Recipe],
    *,
    default: str,
    summary: Callable[[RowT], str],
    requires: Callable[[RowT], tuple[str, ...]] = lambda row: (),
) -> tuple[RecipeEntry, ...]:
    """The zoo entries of a table of baselines; `make` gives a row's recipe, `default` names the plugin's default."""
    return tuple(
        RecipeEntry(
            name=row.name,
            make=partial(make, row),
            requires=requires(row),
            published=row.published,
            default=row.name == default,
            summary=summary(row),
        )
        for row in rows
    )


def sample_recipe(
    name: str,
    detector: DetectorConfig,
    evaluation: EvaluationConfig,
    *,
    lr: float,
    weight_decay: float = 1e-4,
    epochs: int = 30,
    keep_ratio: bool = True,
) -> Recipe:
    """A small model's recipe on the bundled sample, from random weights: a demo that takes minutes on a CPU.

    Images of 320 pixels flipped both ways, steps of 2; the rate falls after three quarters and nine tenths.
    """
    resize = ResizeConfig(scales=((320, 320),), keep_ratio=keep_ratio)
    return Recipe(
        name=name,
        detector=detector,
        data=DataConfig(
            train=SampleConfig(split="train"),
            val=SampleConfig(split="val"),
            train_transforms=(resize, FlipConfig(vertical_probability=0.5)),
            test_transforms=(resize,),
        ),
        optimizer=OptimizerConfig(lr=lr, lr_batch=0, weight_decay=weight_decay),
        schedule=ScheduleConfig(
            epochs=epochs,
            milestones=(epochs * 3 // 4, epochs * 9 // 10),
            warmup_steps=20,
            warmup_factor=0.01,
            clip_norm=10.0,
        ),
        evaluation=evaluation,
    )
