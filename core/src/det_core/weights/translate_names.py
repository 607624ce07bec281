"""Translation of det's parameter names to those of other projects."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import frozen

from det_core.errors import WeightsError
from det_core.offers import Change, Names, Part
from det_core.plugins import plugin_manager
from det_core.settings import Component, fields_of
from det_core.slots import ProposalHeadConfig, TrunkConfig
from det_core.weights.detectron_names import DETECTOR_BLOBS
from det_core.weights.older_names import DETECTRON, unwrapped

if TYPE_CHECKING:
    from det_core.model.detector_config import DetectorConfig


@frozen(eq=False)
class Origin:
    """The source of a parameter: its name there, and the conversion of its value."""

    name: str
    change: Change | None = None


def translate(source: str, config: Component, key: str) -> str:
    """The source's name of det's `key` in a component; WeightsError if there is no weight map."""
    return locate(source, names_of(source, config), key).name


def names_of(source: str, config: Component) -> Names:
    """The names in a component's weight map; WeightsError if it has none for this source."""
    weight_map = plugin_manager().weight_map(source, type(config))
    if weight_map is None:
        owner = plugin_manager().provider(type(config))
        who = f" (from {owner.label})" if owner else ""
        raise WeightsError(
            f"{config.slot} type {config.type!r}{who} has no weight map for {source!r}, so its weights cannot be "
            "imported; its plugin can add one with the hook det_weight_maps"
        )
    return weight_map.names(config)


def locate(source: str, names: Names, key: str) -> Origin:
    """The source of det's `key`."""
    for ours, part in names.parts.items():
        if key.startswith(f"{ours}."):
            inner = locate(source, names_of(source, part.config), key[len(ours) + 1 :])
            return Origin(f"{part.prefix}.{inner.name}" if part.prefix else inner.name, inner.change)
    change = next((c for pattern, c in names.changes if re.match(pattern, key)), None)
    for pattern, replacement in names.rules:
        renamed, count = re.subn(rf"^(?:{pattern})", replacement, key, count=1)
        if count:
            return Origin(renamed, change)
    return Origin(key, change)


def is_detector(keys: Iterable[str]) -> bool:
    """Whether the names are those of a whole detector, not only of a backbone."""
    return any(key.startswith(("backbone.", *DETECTOR_BLOBS)) for key in unwrapped(keys))


def detector_names(source: str, config: DetectorConfig, keys: Iterable[str]) -> Names:
    """The parts of a whole detector, with the source's top-level names."""
    parts: dict[str, Part] = {}
    for ours, theirs in _prefixes(source, config, list(keys)).items():
        if (part := getattr(config, ours)) is not None:
            parts[ours] = Part(part, theirs)
    return Names(parts=parts)


def _prefixes(source: str, config: DetectorConfig, keys: list[str]) -> dict[str, str]:
    """Maps det's part to the source's prefix."""
    if source == "torchvision":
        # FPN models separate backbone and pyramid; SSD's backbone contains everything before the head.
        apart = config.neck is not None and any(key.startswith("backbone.body.") for key in keys)
        return {
            "backbone": "backbone.body" if apart else "backbone",
            "neck": "backbone.fpn" if apart else "backbone",
            "dense_head": "rpn.head" if isinstance(config.dense_head, ProposalHeadConfig) else "head",
            "roi_head": "roi_heads",
        }
    if source in DETECTRON:
        return {
            "backbone": "backbone" if config.neck is None else "backbone.bottom_up",
            "neck": "backbone",
            "dense_head": "proposal_generator.rpn_head"
            if isinstance(config.dense_head, ProposalHeadConfig)
            else "head",
            "roi_head": "roi_heads",
        }
    alone = config.roi_head is None and any(key.startswith("bbox_head.") for key in keys)
    dense_head = "bbox_head" if alone else "rpn_head"
    return {"backbone": "backbone", "neck": "neck", "dense_head": dense_head, "roi_head": "roi_head"}


def backbone_names(config: DetectorConfig) -> Names:
    """The parts of a detector with ImageNet weights: the backbone, and a trunk of the RoI head."""
    return Names(parts={ours: Part(part, "") for ours, part in backbone_parts(config).items()})


def backbone_parts(config: DetectorConfig) -> dict[str, Component]:
    """Maps the paths of these parts to their configurations."""
    parts: dict[str, Component] = {"backbone": config.backbone}
    if config.roi_head is not None:
        for field in fields_of(type(config.roi_head)):
            value = getattr(config.roi_head, field.name)
            if isinstance(value, TrunkConfig):
                parts[f"roi_head.{field.name}"] = value
    return parts
