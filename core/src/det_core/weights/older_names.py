"""Names in older files of a source, and the same names in newer files, which the weight maps know. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from det_core.errors import WeightsError
from det_core.weights.detectron_names import from_benchmark, from_blobs

SOURCES = ("mmdet", "mmdet1", "torchvision", "detectron2", "detectron", "maskrcnn-benchmark")
# Sources whose weight maps have the names of detectron2.
DETECTRON = ("detectron2", "detectron", "maskrcnn-benchmark")

Renames = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

# SSD before mmdet 2.14, and deformable convolutions before 1.0.
_MMDET: Renames = (
    (r"backbone\.extra\.(\d+)\.", lambda m: f"neck.extra_layers.{int(m[1]) // 2}.{int(m[1]) % 2}.conv."),
    (r"backbone\.l2_norm\.weight$", "neck.l2_norm.weight"),
    (r"(.*\.conv\d+)_offset\.(weight|bias)$", r"\1.conv_offset.\2"),
)
OLDER: Mapping[str, Renames] = {
    "mmdet": _MMDET,
    "mmdet1": (
        *_MMDET,
        (r"(mask_head|shared_head|semantic_head|(?:bbox|mask|semantic)_roi_extractor)\.", r"roi_head.\1."),
        (r"(.*)\.norm\.(weight|bias)$", r"\1.gn.\2"),  # group norms of a few weeks in 2018 and 2019
    ),
    "detectron2": (
        (r"(.*\.conv\d+)_offset\.(weight|bias)$", r"\1.conv_offset.\2"),
        (r"roi_heads\.(box_head|box_predictor)\.(\d+)\.", r"roi_heads.\2.\1."),  # of a cascade, stage by stage
    ),
    "torchvision": (
        (r"backbone\.fpn\.(inner|layer)_blocks\.(\d+)\.(weight|bias)$", r"backbone.fpn.\1_blocks.\2.0.\3"),
        (r"rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
        (
            r"roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)$",
            lambda m: f"roi_heads.mask_head.{int(m[1]) - 1}.0.{m[2]}",
        ),
    ),
}
BOX_HEAD = r"bbox_head\.(?:\d+\.)?fc_(?:cls|reg)\."  # of mmdet 0.x and 1.x: later under `roi_head.`


def check_source(source: str) -> None:
    """Raise WeightsError for an unknown source."""
    if source not in SOURCES:
        raise WeightsError(f"unknown source {source!r}; allowed: {', '.join(SOURCES)}")


def unwrapped(keys: Iterable[str]) -> dict[str, str]:
    """Maps names without the prefix `module.` of DDP, if all have it, to those in the file."""
    keys = list(keys)
    wrapped = bool(keys) and all(key.startswith("module.") for key in keys)
    return {key.removeprefix("module.") if wrapped else key: key for key in keys}


def current_names(source: str, keys: Iterable[str]) -> dict[str, str]:
    """Maps the names in weight maps to those in the file, which may be older or have DDP's prefix `module.`.

    Raises WeightsError for an unknown source.
    """
    check_source(source)
    found: dict[str, str] = {}
    plain = unwrapped(keys)
    if source == "detectron":
        return {name: plain[blob] for blob, name in from_blobs(plain).items()}
    if source == "maskrcnn-benchmark":
        return {name: plain[theirs] for theirs, name in from_benchmark(plain).items()}
    for name, key in plain.items():
        for pattern, replacement in OLDER.get(source, ()):
            name = re.sub(rf"^(?:{pattern})", replacement, name)
        found[name] = key
    if source in ("mmdet", "mmdet1"):
        rules = _box_head_rules(source, found)
        found = {_renamed(name, rules): key for name, key in found.items()}
    return found


def _box_head_rules(source: str, names: Iterable[str]) -> Renames:
    """What becomes of `bbox_head`, which stands for the head of a RetinaNet, of an SSD and of a second stage."""
    names = list(names)
    if any(name.startswith("backbone.features.") for name in names):  # SSD
        return ((r"bbox_head\.(cls|reg)_convs\.(\d+)\.(weight|bias)$", r"bbox_head.\1_convs.\2.0.\3"),)
    if source == "mmdet1" and any(re.match(BOX_HEAD, name) for name in names):
        return ((r"bbox_head\.", "roi_head.bbox_head."),)
    # RetinaNet's towers were plain convolutions until April 2019.
    return ((r"bbox_head\.(cls|reg)_convs\.(\d+)\.(weight|bias)$", r"bbox_head.\1_convs.\2.conv.\3"),)


def _renamed(name: str, rules: Renames) -> str:
    for pattern, replacement in rules:
        name = re.sub(rf"^(?:{pattern})", replacement, name)
    return name
