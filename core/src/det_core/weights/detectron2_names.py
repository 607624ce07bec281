"""Names and layouts of detectron2, and of the two projects before it, for weight maps of plugins. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import evolve

from det_core.boxes.box_config import GridAnchorsConfig
from det_core.offers import Change, Names, WeightMap
from det_core.settings import Component
from det_core.slots import AnchorConfig
from det_core.weights.mmdet_names import Changes

if TYPE_CHECKING:
    from torch import Tensor

Rules = list[tuple[str, str]]


def numbered_convs(ours: str, theirs: str, count: int) -> Rules:
    """The rules of `Names` for `count` `ConvNorm` layers, which detectron2 counts from 1; norms hang on convolutions.

    ours: a regular expression.
    """
    rules: Rules = []
    for i in range(count):
        rules += [(rf"{ours}\.{i}\.conv\.", f"{theirs}{i + 1}."), (rf"{ours}\.{i}\.norm\.", f"{theirs}{i + 1}.norm.")]
    return rules


def detectron_maps(
    component: type[Component],
    names: Callable[[Any], Names],
    changes: Callable[[Any], Changes] = lambda config: (),
    detectron: Callable[[Any], Changes] | None = None,
) -> tuple[WeightMap, ...]:
    """A component's weight maps for detectron2, Detectron and maskrcnn-benchmark.

    The names of all are detectron2's (`older_names.py` has those of the others); `names` has its values that change.
    `changes` are the values that are laid out otherwise in the other two, `detectron` those in Detectron alone.
    """

    def older(config: Any) -> Names:
        return evolve(names(config), changes=changes(config))

    def oldest(config: Any) -> Names:
        return evolve(names(config), changes=(detectron or changes)(config))

    return (
        WeightMap("detectron2", component, names),
        WeightMap("detectron", component, oldest),
        WeightMap("maskrcnn-benchmark", component, older),
    )


def sorted_by_ratio(anchors: AnchorConfig, order: tuple[int, ...] | None = None) -> tuple[Change, ...]:
    """How outputs of a cell's anchors change: detectron2 sorts them by size, det by ratio. Nothing for one size.

    order: for each ratio its place in the file, if it lists them in another order.
    """
    if not isinstance(anchors, GridAnchorsConfig) or anchors.sizes() < 2:
        return ()
    sizes, ratios = anchors.sizes(), len(anchors.ratios)

    def apply(value: Tensor) -> Tensor:
        if len(value) % (sizes * ratios):
            return value  # other anchors; the mismatch is reported as a wrong shape
        by_ratio = value.unflatten(0, (sizes, ratios, -1)).transpose(0, 1)
        return (by_ratio if order is None else by_ratio[list(order)]).flatten(0, 2)

    return (Change("anchors of a cell sorted by ratio, then by size", apply),)
