"""What a checkpoint of detectron2, Detectron or maskrcnn-benchmark shows of its model: the recipes that it may be of.

Weights show the model, its layers and the number of classes. Where a block has its stride, the deviation of pixels and
the kind of pooling show only in a configuration (`yacs_facts.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from det_core.errors import WeightsError
from det_core.load import load_recipe
from det_core.recipe import Recipe
from det_core.weights.fill_detector import class_count, unfit
from det_core.weights.older_names import current_names

RES4_BLOCKS = {6: "50", 23: "101", 36: "152"}  # number of blocks in res4 to the depth
# Classes of the data sets in names of recipes.
CLASSES = {"lvis-v0.5": 1230, "lvis-v1": 1203, "cityscapes": 8, "voc": 20}
# Settings of training alone, and names: recipes that differ in no others are the same detector.
_TRAINING = re.compile(
    r".*_loss|loss_.*|assigner|sampler|add_ground_truth|train_limits|allowed_border|touching|normaliser|pretrained|"
    r"frozen_stages|synchronised|refine_objects|shared_gradient|mask_targets|prior"
)


def candidates(source: str, state: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """The recipes among `names` of which the weights may be: all of them fit, as does the number of classes."""
    renamed = {name: state[key] for name, key in current_names(source, state).items()}
    stem = rf"{_model(renamed)}/{source}-{_network(renamed)}-{_kind(renamed)}-"
    found = []
    for name in names:
        if re.match(stem, name) and _fits(source, state, name):
            found.append(name)
    return _of_data_set(source, state, found)


def _fits(source: str, state: Mapping[str, Any], name: str) -> bool:
    """Whether all weights are those of the recipe's detector. A norm that trains counts its batches; others do not."""
    config = load_recipe(name).detector
    norm: Any = getattr(config.backbone, "norm", None)
    counts = any(key.endswith("num_batches_tracked") for key in state)
    if norm is not None and counts != (norm.type == "batch_norm"):
        return False
    try:
        count = class_count(state, source=source, config=config)
    except WeightsError:
        return False
    return not unfit(state, source=source, config=config, num_classes=count or 1)


def _of_data_set(source: str, state: Mapping[str, Any], names: list[str]) -> list[str]:
    """Those of the data set with this number of classes, or else those of no such data set."""
    special = {name: count for name in names for part, count in CLASSES.items() if f"-{part}-" in name}
    if not special:
        return names
    count = class_count(state, source=source, config=load_recipe(names[0]).detector)
    own = [name for name, classes in special.items() if classes == count]
    return own or [name for name in names if name not in special]


def same_at_test(names: Iterable[str]) -> list[list[str]]:
    """The recipes in groups that differ only in how they train: their detections are the same."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_shown_at_test(load_recipe(name)), []).append(name)
    return list(groups.values())


def _shown_at_test(recipe: Recipe) -> str:
    plain = recipe.to_plain()
    return repr((_without_training(plain["detector"]), plain["data"]["test_transforms"]))


def _without_training(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_training(inner) for key, inner in value.items() if not _TRAINING.fullmatch(key)}
    if isinstance(value, list):
        return [_without_training(inner) for inner in value]
    return value


def _model(state: Mapping[str, Any]) -> str:
    if any(key.startswith("head.cls_subnet.") for key in state):
        return "retinanet"
    proposes = any(key.startswith("proposal_generator.") for key in state)
    if not any(key.startswith("roi_heads.") for key in state):
        return "rpn"
    masks = any(key.startswith("roi_heads.mask_head.") for key in state)
    cascade = "cascade-" if any(re.match(r"roi_heads\.(0\.box_head|box_head\.0)\.", key) for key in state) else ""
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
