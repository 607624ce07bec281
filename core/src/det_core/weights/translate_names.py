"""Names of weights: ours to those of other projects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from det_core.errors import WeightsError
from det_core.offers import Change, Names, Part
from det_core.plugins import plugin_manager
from det_core.settings import Component, fields_of
from det_core.slots import ProposalHeadConfig, TrunkConfig

if TYPE_CHECKING:
    from det_core.model.detector_config import DetectorConfig

SOURCES = ("mmdet", "torchvision", "detectron2")

# Names that older files of a source have, and what newer ones call the same.
OLDER: Mapping[str, tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]] = {
    "torchvision": (
        (r"backbone\.fpn\.(inner|layer)_blocks\.(\d+)\.(weight|bias)$", r"backbone.fpn.\1_blocks.\2.0.\3"),
        (r"rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
        (
            r"roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)$",
            lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0.{m[2]}",
        ),
    ),
}


@frozen(eq=False)
class Origin:
    """Where a weight of ours comes from: the source's name, and what is done to the value."""

    name: str
    change: Change | None = None


def translate(source: str, config: Component, key: str) -> str:
    """The source's name of our `key` in a component; WeightsError if nobody says how its names translate."""
    return locate(source, names_of(source, config), key).name


def names_of(source: str, config: Component) -> Names:
    """What the component's weight map says; WeightsError if it has none for this source."""
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
    """Where our `key` comes from."""
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


def check_source(source: str) -> None:
    """WeightsError for a source that is not known."""
    if source not in SOURCES:
        raise WeightsError(f"unknown source {source!r}; allowed: {', '.join(SOURCES)}")


def holds_detector(source: str, keys: Iterable[str]) -> bool:
    """Whether these are the names of a whole detector, not of a backbone alone."""
    check_source(source)
    return any(key.startswith("backbone.") for key in keys)


def detector_names(source: str, config: DetectorConfig, keys: Iterable[str]) -> Names:
    """The parts of a whole detector under the source's top-level names."""
    check_source(source)
    if source == "detectron2":
        raise WeightsError(
            "of detectron2 only backbones are imported, and these are the weights of a whole detector; "
            "give a file of its ImageNet models such as MSRA/R-50.pkl"
        )
    parts: dict[str, Part] = {}
    for ours, (theirs, part) in _parts(source, config, list(keys)).items():
        if part is not None:
            parts[ours] = Part(part, theirs)
    return Names(parts=parts)


def _parts(source: str, config: DetectorConfig, keys: list[str]) -> dict[str, tuple[str, Component | None]]:
    """Our part to their prefix and its configuration."""
    if source == "torchvision":
        head = "rpn.head" if isinstance(config.dense_head, ProposalHeadConfig) else "head"
        # Its FPN models keep backbone and pyramid apart; SSD's backbone holds all that comes before its head.
        apart = config.neck is not None and any(key.startswith("backbone.body.") for key in keys)
        return {
            "backbone": ("backbone.body" if apart else "backbone", config.backbone),
            "neck": ("backbone.fpn" if apart else "backbone", config.neck),
            "dense_head": (head, config.dense_head),
            "roi_head": ("roi_heads", config.roi_head),
        }
    alone = "bbox_head" if any(k.startswith("bbox_head.") for k in keys) else "rpn_head"
    return {
        "backbone": ("backbone", config.backbone),
        "neck": ("neck", config.neck),
        "dense_head": (alone if config.roi_head is None else "rpn_head", config.dense_head),
        "roi_head": ("roi_head", config.roi_head),
    }


def backbone_names(config: DetectorConfig) -> Names:
    """The parts of a detector that an ImageNet model fills: the backbone, and a trunk of the RoI head."""
    return Names(parts={ours: Part(part, "") for ours, part in backbone_parts(config).items()})


def backbone_parts(config: DetectorConfig) -> dict[str, Component]:
    """Path to configuration of these parts."""
    parts: dict[str, Component] = {"backbone": config.backbone}
    if config.roi_head is not None:
        for field in fields_of(type(config.roi_head)):
            value = getattr(config.roi_head, field.name)
            if isinstance(value, TrunkConfig):
                parts[f"roi_head.{field.name}"] = value
    return parts


def modern(source: str, keys: Iterable[str]) -> dict[str, str]:
    """The names that the maps speak of to the file's own, which may be older, or wrapped for several GPUs."""
    keys = list(keys)
    wrapped = bool(keys) and all(key.startswith("module.") for key in keys)
    found: dict[str, str] = {}
    for key in keys:
        name = key.removeprefix("module.") if wrapped else key
        for pattern, replacement in OLDER.get(source, ()):
            name = re.sub(rf"^(?:{pattern})", replacement, name)
        found[name] = key
    return found
