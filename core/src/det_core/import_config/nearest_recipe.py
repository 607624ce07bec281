"""The recipe that a configuration is nearest to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import product

from det_core.errors import DetError
from det_core.offers import RecipeEntry
from det_core.weights.mmdet_facts import FileFacts
from det_core.weights.mmdet_presets import LEGACY, SCHEDULE


def nearest_recipe(facts: FileFacts, names: Iterable[str], where: str) -> str:
    """The recipe of the same model whose backbone, neck, variant and schedule are nearest.

    where: the place of the model, for messages.

    Raises:
        DetError: if there is no recipe of the model.
    """
    names = list(names)
    if facts.model is None or not any(name.startswith(f"{facts.model}/") for name in names):
        described = facts.described or "not described"
        raise DetError(
            f"{where}: the model is {described}, and there are no recipes of this model; models with recipes: "
            f"{', '.join(sorted({name.partition('/')[0] for name in names}))}"
        )
    legacy = LEGACY if facts.generation == "mmdet1" else ""
    variants = _unique(facts.variant, "coco" if facts.model == "ssd" else "")
    for variant, kind, network in product(variants, _kinds(facts), _networks(facts)):
        stem = "-".join(part for part in (f"{legacy}{network}", kind, variant) if part)
        pattern = rf"{re.escape(f'{facts.model}/{stem}')}-{SCHEDULE}"
        found = [match for name in names if (match := re.fullmatch(pattern, name))]
        if found:
            return min(found, key=lambda match: (match["schedule"] != facts.schedule, match["ms"] is not None))[0]
        only = [name for name in names if name.startswith(f"{facts.model}/{stem}-")]
        if only and network == facts.network and variant == variants[-1]:  # a backbone that has no plain recipe
            return min(only)
    raise DetError(
        f"{where}: the model is {facts.described}, and there is no recipe near it; start from one of your own"
    )


def others_near(name: str, recipes: Mapping[str, RecipeEntry]) -> list[str]:
    """The other recipes of the same model, with the same conventions, on the same backbone and kind of features."""
    stem = re.match(rf"[^/]+/(?:{LEGACY})?[^/]*?-(?:fpn|c4|300|512)\b", name)
    source = recipes[name].weights_of
    return sorted(
        other
        for other, entry in recipes.items()
        if stem and other.startswith(stem[0]) and other != name and entry.weights_of == source and not entry.demo
    )


def _unique(*words: str) -> list[str]:
    return list(dict.fromkeys(words))


def _kinds(facts: FileFacts) -> list[str]:
    if facts.model == "ssd":
        return _unique(facts.kind or "300", "300")
    return _unique(facts.kind or "fpn", "fpn")


def _networks(facts: FileFacts) -> list[str]:
    if facts.model == "ssd":
        return ["vgg16"]
    own = facts.network or "r50"
    if own.startswith(("swin-", "convnext-")):
        return _unique(own, f"{own.partition('-')[0]}-t", "r50")
    fallback = ["r50-caffe"] if own.endswith("-caffe") else ["x101-32x4d"] if own.startswith("x") else []
    return _unique(own, *fallback, "r50")
