"""The recipe of a checkpoint of mmdetection: which one fits, which settings the file changes, what contradicts it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from det_core.errors import WeightsError, nearest
from det_core.weights.mmdet_values import at
from det_core.weights.recipe_values import as_setting, differs, look_up

if TYPE_CHECKING:
    from det_core.recipe import Recipe
    from det_core.weights.mmdet_facts import FileFacts

LEGACY = "mmdet1-"  # before the network's name, in recipes with the conventions of 0.5 to 1.2
# `ms`: trained on images of many sizes, also cropped
SCHEDULE = r"(?P<ms>ms-(?:crop-)?)?(?P<schedule>\d+x|\d+(?:-\d+)*e)"

# det's types of dense head and RoI head, and whether there are masks (or for HTC a semantic branch), to the model.
_FAMILIES: Mapping[tuple[str, str, bool], str] = {
    ("rpn", "", False): "rpn",
    ("ga_rpn", "", False): "ga-rpn",
    ("retinanet", "", False): "retinanet",
    ("ga_retinanet", "", False): "ga-retinanet",
    ("ssd", "", False): "ssd",
    ("", "rcnn", False): "fast-rcnn",
    ("", "rcnn", True): "fast-mask-rcnn",
    ("rpn", "rcnn", False): "faster-rcnn",
    ("rpn", "rcnn", True): "mask-rcnn",
    ("ga_rpn", "rcnn", False): "ga-faster-rcnn",
    ("rpn", "cascade", False): "cascade-rcnn",
    ("rpn", "cascade", True): "cascade-mask-rcnn",
    ("rpn", "htc", False): "htc-without-semantic",
    ("rpn", "htc", True): "htc",
}


def preset_of(facts: FileFacts, names: Iterable[str]) -> str:
    """The name of the recipe for a file, among those available.

    The schedule of the file is preferred; another one does as well, since it does not change what the weights mean.

    Raises:
        WeightsError: if the file does not say what it is, or there is no recipe of its model; it asks for --recipe.
    """
    if not facts.described:
        reason = next((note for note in facts.notes if "configuration" in note), "the file does not describe its model")
        raise WeightsError(f"{reason}; give --recipe")
    if facts.generation is None:
        raise WeightsError(
            f"the file's model is {facts.described}, but the file does not record its version of "
            "mmdetection, and the conventions of 0.5 to 1.2 differ from later ones; give --from and --recipe"
        )
    if facts.model is None or facts.network is None or facts.kind is None:
        raise WeightsError(
            f"the file's model is {facts.described}, and there are no recipes of this model; give --recipe"
        )
    stem, names = _stem(facts), list(names)
    fitting = [found for name in names if (found := re.fullmatch(rf"{re.escape(stem)}-{SCHEDULE}", name))]
    if not fitting:
        wanted = f"{stem}-{facts.schedule or '1x'}"
        similar = nearest(wanted, [name for name in names if name.startswith(f"{facts.model}/")])
        raise WeightsError(
            f"the file's model is {facts.described}, and there is no recipe {wanted}{similar}{'' if similar else ';'} "
            "give --recipe"
        )
    return min(fitting, key=lambda found: (found["schedule"] != facts.schedule, found["ms"] is not None))[0]


def _stem(facts: FileFacts) -> str:
    """The recipe's name without the schedule."""
    legacy = LEGACY if facts.generation == "mmdet1" else ""
    parts = [f"{legacy}{facts.network}", facts.kind, facts.variant]
    return f"{facts.model}/{'-'.join(part for part in parts if part)}"


def settings_of(facts: FileFacts, recipe: Recipe) -> list[str]:
    """Overrides (`PATH=VALUE`) of the recipe's settings that differ from those in the file's configuration.

    They are those of images, proposals, thresholds and numbers of detections, as far as the recipe has them.
    """
    plain = recipe.to_plain()
    changes = [(path, value) for path, value in file_settings(facts, plain) if differs(plain, path, value)]
    return [f"{path}={as_setting(value)}" for path, value in changes]


def file_settings(facts: FileFacts, plain: Any) -> Iterator[tuple[str, Any]]:
    """Paths of settings and the file's values; None where the file does not say."""
    image, limits = facts.image, facts.limits
    dense, roi = "detector.dense_head", "detector.roi_head"
    two_stage = at(plain, roi) is not None
    head = roi if two_stage else dense
    yield "detector.preprocess.order", image.order
    yield "detector.preprocess.mean", image.mean
    yield "detector.preprocess.std", image.std
    yield "detector.preprocess.pad_divisor", image.pad_divisor
    yield f"{dense}.test_limits.before_nms", limits.rpn_before
    yield f"{dense}.test_limits.after_nms", limits.rpn_after
    if two_stage:
        yield f"{dense}.train_limits.before_nms", limits.rpn_train_before
        yield f"{dense}.train_limits.after_nms", limits.rpn_train_after
    yield f"{dense}.nms_threshold", limits.rpn_nms_threshold
    yield f"{dense}.before_nms", limits.before_nms
    yield f"{head}.score_threshold", limits.score_threshold
    yield f"{head}.nms_threshold", limits.nms_threshold
    yield f"{head}.soft_nms", limits.soft_nms
    yield f"{head}.max_detections", limits.max_detections
    yield f"{roi}.mask_threshold", limits.mask_threshold
    yield f"{roi}.roi_pool.sampling", limits.sampling
    yield f"{roi}.mask_roi_pool.sampling", limits.sampling
    for number, transform in enumerate(at(plain, "data.test_transforms") or ()):
        if at(transform, "type") == "resize" and image.scale is not None:
            yield f"data.test_transforms[{number}].scales", (image.scale,)
            yield f"data.test_transforms[{number}].keep_ratio", image.keep_ratio


def contradictions(facts: FileFacts, recipe: Recipe) -> list[str]:
    """What a recipe has otherwise than the file says of itself, one sentence each; empty if they agree.

    Compared are the model, the backbone, the colours, and the meaning of box outputs: with another value of these the
    weights may fit and the detections be wrong.
    """
    plain = recipe.to_plain()
    found = []
    family = _family(plain)
    # A guided Fast R-CNN is a Fast R-CNN with other deviations, which are compared below.
    told = "fast-rcnn" if facts.model == "ga-fast-rcnn" else facts.model
    if family is not None and told is not None and family != told:
        found.append(f"detector: the recipe's model is {family}, the file's {facts.model}")
    for path, value in _meanings(facts, plain):
        if differs(plain, path, value):
            found.append(f"{path}: the recipe has {as_setting(look_up(plain, path))}, the file {as_setting(value)}")
    return [*found, *_other_stages(facts, plain)]


def _meanings(facts: FileFacts, plain: Any) -> Iterator[tuple[str, Any]]:
    """Paths of what the weights were trained for, and the file's values; None where the file does not say."""
    image, anchors, backbone = facts.image, facts.anchors, facts.backbone
    dense, roi = "detector.dense_head", "detector.roi_head"
    yield "detector.preprocess.order", image.order
    yield "detector.preprocess.mean", image.mean
    yield "detector.preprocess.std", image.std
    for place in ("detector.backbone", f"{roi}.trunk"):
        yield f"{place}.depth", backbone.depth
        yield f"{place}.groups", backbone.groups
        yield f"{place}.base_width", backbone.base_width
        yield f"{place}.style", backbone.style
    yield f"{dense}.anchors.scales", anchors.scales
    yield f"{dense}.anchors.ratios", anchors.ratios or anchors.level_ratios
    yield f"{dense}.anchors.sizes", anchors.sizes
    yield f"{dense}.guided.base_scale", None if anchors.scales is None else anchors.scales[0]
    yield f"{dense}.guided.scales_per_octave", None if anchors.scales is None else len(anchors.scales)
    yield f"{dense}.guided.ratios", anchors.ratios
    yield f"{dense}.guided.coder.stds", anchors.guided
    yield f"{dense}.coder.stds", anchors.deviations
    for number, stds in enumerate(facts.roi_deviations or ()):
        yield f"{roi}.stages[{number}].coder.stds", stds
    yield f"{roi}.coder.stds", facts.roi_deviations[0] if facts.roi_deviations else None


def _other_stages(facts: FileFacts, plain: Any) -> list[str]:
    """A sentence if the recipe's RoI head has another number of stages."""
    stages = at(plain, "detector.roi_head.stages")
    if not isinstance(stages, list) or facts.roi_deviations is None or len(stages) == len(facts.roi_deviations):
        return []
    return [f"detector.roi_head.stages: the recipe has {len(stages)}, the file {len(facts.roi_deviations)}"]


def _family(plain: Any) -> str | None:
    """The model of a recipe; None if it is not a published baseline's."""
    dense, roi = at(plain, "detector.dense_head.type") or "", at(plain, "detector.roi_head.type") or ""
    extra = "semantic" if roi == "htc" else "mask_head"
    return _FAMILIES.get((dense, roi, at(plain, f"detector.roi_head.{extra}") is not None))
