"""Ranks compare what they train before the first step, and all end with what differs."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch

from det_core.data.data_config import SampleConfig
from det_core.engine import agreement
from det_core.engine.agreement import check_agreement
from det_core.engine.distributed import World
from det_core.errors import DetError
from det_core.recipe import Recipe
from det_core.structures import Classes

WORLD = World(0, 2, torch.device("cpu"))


@pytest.fixture
def recipe() -> Recipe:
    from det_core.load import load_recipe

    return load_recipe("rpn/r18-fpn-demo")


def data(**changes: Any) -> Any:
    opened = SampleConfig(split="val").build("")
    for name, value in changes.items():
        setattr(opened, name, value)
    return opened


def with_rate(recipe: Recipe, rate: float) -> Recipe:
    return attrs.evolve(recipe, optimizer=attrs.evolve(recipe.optimizer, lr=rate))


def compared(monkeypatch: pytest.MonkeyPatch, first: tuple[Any, ...], second: tuple[Any, ...]) -> None:
    """Compare two ranks in one process; the other rank's facts are gathered as given."""
    other = agreement._facts(*second)
    monkeypatch.setattr(agreement, "gather", lambda facts, world, what: [facts, other])
    check_agreement(*first, WORLD)


def test_equal_ranks_agree(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    first = (recipe, (data(), data()), 3)
    compared(monkeypatch, first, (recipe, (data(), data()), 3))


def test_paths_and_workers_may_differ(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    other = attrs.evolve(recipe, data=attrs.evolve(recipe.data, root="/elsewhere", workers=7))
    compared(monkeypatch, (recipe, (data(), data()), 0), (other, (data(), data()), 0))


def test_what_differs_is_named(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    half = data()
    half.image_ids, half.sizes = half.image_ids[:5], half.sizes[:5]
    other_names = Classes(names=tuple(f"other {name}" for name in data().classes.names), ids=data().classes.ids)
    cases = [
        ((with_rate(recipe, 0.5), (data(), data()), 0), r"setting optimizer\.lr: .* on rank 0, 0\.5"),
        ((recipe, (half, data()), 0), r"training images: \d+ on rank 0, 5"),
        ((recipe, (data(), data(sizes=data().sizes + 1)), 0), r"validation images' ids and sizes: "),
        ((recipe, (data(classes=other_names), data()), 0), "training classes: "),
        ((recipe, (data(), data()), 4), "step: 0 on rank 0, 4"),
    ]
    for second, message in cases:
        with pytest.raises(DetError, match=rf"rank 1 differs from rank 0 \({message}"):
            compared(monkeypatch, (recipe, (data(), data()), 0), second)


def test_versions_differ(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    first = (recipe, (data(), data()), 0)
    other = agreement._facts(*first) | {"version of torch": "1.0"}
    monkeypatch.setattr(agreement, "gather", lambda facts, world, what: [facts, other])
    with pytest.raises(DetError, match=r"version of torch: 2\..* on rank 0, 1\.0\); start all ranks with the same"):
        check_agreement(*first, WORLD)


def test_many_differences_are_counted(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    first = (recipe, (data(), data()), 0)
    monkeypatch.setattr(agreement, "gather", lambda facts, world, what: [facts, {}])
    with pytest.raises(DetError, match=r"; and \d+ more\)"):
        check_agreement(*first, WORLD)
