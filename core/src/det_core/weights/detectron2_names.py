"""detectron2's names and layouts that several plugins share, for their weight maps. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.boxes.box_config import GridAnchorsConfig
from det_core.offers import Change
from det_core.slots import AnchorConfig

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


def sorted_by_ratio(anchors: AnchorConfig) -> tuple[Change, ...]:
    """How outputs of a cell's anchors change: detectron2 sorts them by size, det by ratio. Nothing for one size."""
    if not isinstance(anchors, GridAnchorsConfig) or anchors.sizes() < 2:
        return ()
    sizes, ratios = anchors.sizes(), len(anchors.ratios)

    def apply(value: Tensor) -> Tensor:
        if len(value) % (sizes * ratios):
            return value  # other anchors; the mismatch is reported as a wrong shape
        return value.unflatten(0, (sizes, ratios, -1)).transpose(0, 1).flatten(0, 2)

    return (Change("anchors of a cell sorted by ratio, then by size", apply),)
