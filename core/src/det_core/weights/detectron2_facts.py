"""What a checkpoint of detectron2 shows of its model: the recipes that it may be of, and its pixel mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from det_core.recipe import Recipe

RES4_BLOCKS = {6: "50", 23: "101", 36: "152"}  # number of blocks in res4 to the depth


def candidates(state: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """The recipes among `names` whose model, kind and network the weights may be of.

    Where a block has its stride, the deviation of pixels and the kind of pooling cannot be seen in them.
    """
    model, kind, network = _model(state), _kind(state), _network(state)
    return [name for name in names if re.match(rf"{model}/detectron2-{network}-{kind}-", name)]


def _model(state: Mapping[str, Any]) -> str:
    if any(key.startswith("head.cls_subnet.") for key in state):
        return "retinanet"
    proposes = any(key.startswith("proposal_generator.") for key in state)
    if not any(key.startswith("roi_heads.") for key in state):
        return "rpn"
    masks = any(key.startswith("roi_heads.mask_head.") for key in state)
    cascade = "cascade-" if any(key.startswith("roi_heads.box_head.0.") for key in state) else ""
    speed = "" if cascade else "faster-" if proposes else "fast-"
    return f"{cascade}mask-rcnn" if masks else f"{speed or cascade}rcnn"


def _kind(state: Mapping[str, Any]) -> str:
    if any(key.startswith("backbone.fpn_") for key in state):
        return "fpn"
    return "c4" if any(key.startswith("roi_heads.res5.") for key in state) or _blocks(state, 5) == 0 else "dc5"


def _network(state: Mapping[str, Any]) -> str:
    """Such as `r50` or `x101-32x8d`; any network where it cannot be seen."""
    depth = RES4_BLOCKS.get(_blocks(state, 4))
    found = [value for key, value in state.items() if re.search(r"\bres4\.1\.conv2\.weight$", key)]
    if depth is None or not found:
        return r"[\w-]+?"
    # A group's input channels are fewer than all of them.
    grouped = found[0].shape[1] < found[0].shape[0]
    return rf"x{depth}-\w+" if grouped else f"r{depth}"


def _blocks(state: Mapping[str, Any], stage: int) -> int:
    numbers = [int(found[1]) for key in state if (found := re.search(rf"\bres{stage}\.(\d+)\.", key))]
    return max(numbers, default=-1) + 1


def pixel_contradictions(state: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """How the pixel mean and deviation in a file, which older versions saved, differ from the recipe's."""
    found = []
    for key, ours in (("pixel_mean", recipe.detector.preprocess.mean), ("pixel_std", recipe.detector.preprocess.std)):
        if key in state:
            theirs = [round(float(x), 4) for x in state[key].flatten()]
            if any(abs(a - b) > 1e-3 for a, b in zip(theirs, ours, strict=False)) or len(theirs) != len(ours):
                setting = f"detector.preprocess.{'mean' if key == 'pixel_mean' else 'std'}"
                found.append(f"{setting}: the recipe has {list(ours)}, the file {theirs} ({key})")
    return found
