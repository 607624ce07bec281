"""How other projects' checkpoints map onto these modules, and loading initial weights.

A `WeightMap` says for one component and one source how our names translate into theirs. Maps nest along the
configuration tree: a map names its parts with their configurations, and each part's own map goes on from there.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import attrs
from attrs import frozen

from det_core.config.base import Component, DetError
from det_core.plugins import plugin_manager

if TYPE_CHECKING:
    from torch import Tensor, nn

    from det_core.model.detector import Detector
    from det_core.model.detector_config import DetectorConfig

SOURCES = ("mmdet",)


class WeightsError(DetError, ValueError):
    """Weights do not fit, or cannot be read."""


@frozen
class Part:
    """A component inside a component: its configuration, and what its names begin with in the source."""

    config: Component
    prefix: str


@frozen
class Names:
    """Our names to theirs, for one component.

    rules: (regular expression, replacement), the first that matches from the start of our name is applied; a name
    that none matches is the same in both. parts: our sub-module's name to what is inside it.
    """

    rules: tuple[tuple[str, str], ...] = ()
    parts: Mapping[str, Part] = attrs.field(factory=dict)


@frozen(eq=False)
class WeightMap:
    """How checkpoints of `source` name the weights of a component."""

    source: str
    component: type[Component]
    names: Callable[[Any], Names]


@frozen
class ImportReport:
    """filled: our key to the source's key. ignored: source keys that carry nothing (counters of batch norm)."""

    filled: Mapping[str, str]
    ignored: tuple[str, ...]


def translate(source: str, config: Component, key: str) -> str:
    """The source's name of our `key` in a component; WeightsError if nobody says how its names translate."""
    weight_map = plugin_manager().weight_map(source, type(config))
    if weight_map is None:
        owner = plugin_manager().provider(type(config))
        who = f" (from {owner.label})" if owner else ""
        raise WeightsError(
            f"{config.slot} type {config.type!r}{who} has no weight map for {source!r}, so its weights cannot be "
            "imported; its plugin can add one with the hook det_weight_maps"
        )
    names = weight_map.names(config)
    return _apply(source, names, key)


def _apply(source: str, names: Names, key: str) -> str:
    for ours, part in names.parts.items():
        if key.startswith(f"{ours}."):
            return f"{part.prefix}.{translate(source, part.config, key[len(ours) + 1 :])}"
    for pattern, replacement in names.rules:
        renamed, count = re.subn(rf"^(?:{pattern})", replacement, key, count=1)
        if count:
            return renamed
    return key


def _root(source: str, config: DetectorConfig, keys: Mapping[str, object]) -> Names:
    """The parts of a whole detector under the source's top-level names."""
    if source not in SOURCES:
        raise WeightsError(f"unknown source {source!r}; allowed: {', '.join(SOURCES)}")
    alone = "bbox_head" if any(k.startswith("bbox_head.") for k in keys) else "rpn_head"
    parts: dict[str, Part] = {"backbone": Part(config.backbone, "backbone")}
    if config.neck is not None:
        parts["neck"] = Part(config.neck, "neck")
    if config.dense_head is not None:
        parts["dense_head"] = Part(config.dense_head, alone if config.roi_head is None else "rpn_head")
    if config.roi_head is not None:
        parts["roi_head"] = Part(config.roi_head, "roi_head")
    return Names(parts=parts)


def import_weights(state_dict: Mapping[str, Any], *, source: str, detector: Detector) -> ImportReport:
    """Fill a detector with another project's weights, completely or not at all.

    Args:
        state_dict: the source's names to tensors or numpy arrays.
        source: `mmdet` (2.x and 3.x).
        detector: built from a configuration; its weights are replaced in place.

    Raises:
        WeightsError: for keys of ours that stay unfilled, keys of theirs that are left over, or shapes that differ,
            all of them listed; the detector is then unchanged.
    """
    import torch

    if detector.config is None:
        raise WeightsError("the detector was not built from a configuration, so its parts' weight maps are unknown")
    ours = detector.state_dict()
    names = _root(source, detector.config, state_dict)
    filled = {key: _apply(source, names, key) for key in ours}
    used = set(filled.values())
    left = [key for key in state_dict if key not in used]
    ignored = tuple(key for key in left if key.endswith("num_batches_tracked"))
    problems = [f"left over in the source: {key}" for key in left if key not in ignored]
    values: dict[str, Tensor] = {}
    for key, theirs in filled.items():
        if theirs not in state_dict:
            if not key.endswith("num_batches_tracked"):
                problems.append(f"not in the source: {theirs} (for {key})")
            continue
        value = torch.as_tensor(state_dict[theirs])
        if value.shape != ours[key].shape:
            problems.append(f"shapes differ: {theirs} is {tuple(value.shape)}, {key} is {tuple(ours[key].shape)}")
        values[key] = value
    if problems:
        raise WeightsError(_listing(f"the {source} weights do not fit this detector", problems))
    detector.load_state_dict(values, strict=False)
    return ImportReport({k: filled[k] for k in values}, ignored)


def _listing(title: str, problems: list[str], limit: int = 20) -> str:
    more = [f"  ... and {len(problems) - limit} more"] if len(problems) > limit else []
    count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
    return "\n".join([f"{title}: {count}", *(f"  {p}" for p in problems[:limit]), *more])


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict from a `.safetensors` file or a torch file (read with `weights_only=True`), nothing executed.

    Raises WeightsError for a file that is missing, damaged, holds anything but tensors, or is something else.
    """
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in any way that a pickle can
        raise WeightsError(f"{path}: not a readable checkpoint ({_unreadable(error)})") from None
    for name in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items()
    ):
        raise WeightsError(f"{path}: holds no state dict (a mapping of names to tensors)")
    return dict(content)


def _unreadable(error: Exception) -> str:
    """Why a file cannot be read, in a line, without torch's advice to let it run whatever code it brings."""
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None:
            return "damaged, or no file of torch.save"
        return f"it holds a {named[1]}, and only tensors and plain values are loaded; save the state dict alone"
    sentence = str(error).partition("\n")[0].partition(". ")[0]
    return sentence or type(error).__name__


def load_initial(module: nn.Module, spec: str, *, ignore: tuple[str, ...] = ("fc.",), only: str = "") -> None:
    """Fill a backbone with ImageNet weights: `torchvision:NAME` (downloaded once by torchvision) or a local file.

    Names must be torchvision's; those that begin with `ignore` (the classifier) are left out, and those that do not
    begin with `only` (the stage of a backbone that `module` is). Raises WeightsError for an unknown name, no network,
    a damaged file, or weights that do not fit.
    """
    state = (
        _torchvision_weights(spec.removeprefix("torchvision:"))
        if spec.startswith("torchvision:")
        else (read_state_dict(Path(spec).expanduser()))
    )
    state = {k: v for k, v in state.items() if not k.startswith(ignore) and k.startswith(only)}
    missing, unexpected = (
        [k for k in module.state_dict() if k not in state and not k.endswith("num_batches_tracked")],
        [k for k in state if k not in module.state_dict()],
    )
    wrong = [
        f"shapes differ: {k} is {tuple(v.shape)}, expected {tuple(module.state_dict()[k].shape)}"
        for k, v in state.items()
        if k in module.state_dict() and v.shape != module.state_dict()[k].shape
    ]
    problems = [f"missing: {k}" for k in missing] + [f"left over: {k}" for k in unexpected] + wrong
    if problems:
        raise WeightsError(_listing(f"initial weights {spec!r} do not fit the backbone", problems))
    module.load_state_dict(state, strict=False)


def _torchvision_weights(name: str) -> dict[str, Tensor]:
    """The IMAGENET1K_V1 weights of a torchvision model, from its cache or the network."""
    import torchvision

    from det_core.plugins import nearest

    try:
        weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    except (ValueError, AttributeError):
        known = torchvision.models.list_models(module=torchvision.models)
        raise WeightsError(f"torchvision has no ImageNet weights named {name!r}{nearest(name, known)}") from None
    try:
        return cast("dict[str, Tensor]", weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"torchvision:{name} cannot be downloaded from {weights.url} ({error}); fetch that file elsewhere and give "
            "its path with --set detector.backbone.pretrained=PATH, or train from random weights with "
            "--set detector.backbone.pretrained=null"
        ) from None
