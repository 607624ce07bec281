"""Which generation of mmdetection wrote a file: 0.5 to 1.2 (`mmdet1`), or 2.x and 3.x (`mmdet`)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from det_core.weights.older_names import BOX_HEAD, unwrapped

Generation = Literal["mmdet1", "mmdet"]

# Top-level parts that 2.0 moved into `roi_head`.
_ROI_PARTS = (
    *("mask_head.", "shared_head.", "semantic_head."),
    *("bbox_roi_extractor.", "mask_roi_extractor.", "semantic_roi_extractor."),
)
# What only 2.x and 3.x have: the RoI head as a part, and (from 2.14 on) the neck of SSD.
_MODERN_PARTS = ("roi_head.", "neck.extra_layers.", "neck.l2_norm.")


def version_numbers(text: str) -> tuple[int, ...] | None:
    """The numbers of a version, to compare: (1, 0) of `1.0rc0+abc1234`, (2, 10, 0) of `2.10.0`; None if it has none."""
    found = re.match(r"\s*v?(\d{1,9}(?:\.\d{1,9})*)", text)
    return tuple(int(number) for number in found[1].split(".")) if found else None


def generation_of_version(version: tuple[int, ...] | None) -> Generation | None:
    """The generation of a version of mmdetection; None if the version is unknown."""
    if version is None:
        return None
    return "mmdet1" if version[0] < 2 else "mmdet"


def generation_of(names: Iterable[str]) -> Generation | None:
    """The generation that parameter names belong to; None if they are possible in both.

    Two-stage models differ in where their RoI head is. RPN, RetinaNet and the guided-anchoring models of one stage have
    the same names in both, except a RetinaNet of 0.6 or before, and so has an SSD before 2.14.
    """
    names = set(unwrapped(names))
    if any(name.startswith(_MODERN_PARTS) for name in names):
        return "mmdet"
    tops = {name.partition(".")[0] for name in names}
    if {"bbox_head", "rpn_head"} <= tops or any(name.startswith(_ROI_PARTS) for name in names):
        return "mmdet1"
    if any(re.match(BOX_HEAD, name) for name in names):
        return "mmdet1"
    # The towers of a RetinaNet are plain convolutions up to 0.6. Those of an SSD are, too, up to 2.13.
    plain_towers = {"bbox_head.retina_cls.weight", "bbox_head.cls_convs.0.weight"} <= names
    return "mmdet1" if plain_towers else None
