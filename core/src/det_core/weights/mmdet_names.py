"""mmdet's names of layers that several plugins build, for their weight maps. Imports no torch."""

from __future__ import annotations

from det_core.slots import NormConfig


def conv_rules(ours: str, theirs: str, norm: NormConfig | None) -> tuple[tuple[str, str], ...]:
    """The rules of `Names` for a list of `ConvNorm` layers, named `ours` here and `theirs` in mmdet.

    mmdet's convolution modules name a norm after its kind: `gn` for group norm, `bn` for batch norm.
    ours: a regular expression.
    """
    kind = "gn" if norm is not None and norm.type == "group_norm" else "bn"
    return ((rf"{ours}\.(\d+)\.norm", rf"{theirs}.\1.{kind}"), (rf"{ours}\.", f"{theirs}."))
