"""mmdet's names of layers that several plugins build, and its maps of two generations. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve

from det_core.offers import Change, Names, WeightMap
from det_core.settings import Component
from det_core.slots import NormConfig

Changes = tuple[tuple[str, Change], ...]

# torchvision, and mmdet before 2.0, reserve class 0 for background: the first scores, and unused deltas and masks.
BACKGROUND_LAST = Change("background moved from the first place to the last", lambda value: value.roll(-1, 0))
NO_BACKGROUND_BOX = Change("background's box dropped", lambda value: value[4:])
NO_BACKGROUND_MASK = Change("background's mask dropped", lambda value: value[1:])


def conv_rules(ours: str, theirs: str, norm: NormConfig | None) -> tuple[tuple[str, str], ...]:
    """The rules of `Names` for a list of `ConvNorm` layers, named `ours` here and `theirs` in mmdet.

    mmdet's convolution modules name a norm after its kind: `gn` for group norm, `bn` for batch norm.
    ours: a regular expression.
    """
    kind = "gn" if norm is not None and norm.type == "group_norm" else "bn"
    return ((rf"{ours}\.(\d+)\.norm", rf"{theirs}.\1.{kind}"), (rf"{ours}\.", f"{theirs}."))


def mmdet_maps(
    component: type[Component],
    names: Callable[[Any], Names],
    changes: Callable[[Any], Changes] = lambda config: (),
) -> tuple[WeightMap, WeightMap]:
    """A component's weight maps for mmdet 2.x and 3.x, and for 0.x and 1.x.

    The names of both are those of 2.x and 3.x; `changes` are the values that are laid out otherwise before 2.0.
    """
    older = WeightMap("mmdet1", component, lambda config: evolve(names(config), changes=changes(config)))
    return WeightMap("mmdet", component, names), older
