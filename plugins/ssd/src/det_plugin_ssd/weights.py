"""Weight maps of SSD."""

from __future__ import annotations

from typing import TYPE_CHECKING

from det_core.offers import Change, Names, WeightMap
from det_core.weights.mmdet_names import Changes, mmdet_maps
from det_plugin_ssd.config import SSDAnchorsConfig, SSDHeadConfig, SSDNeckConfig, VGGConfig

if TYPE_CHECKING:
    from torch import Tensor


def _mmdet_head(config: SSDHeadConfig) -> Names:
    return Names(rules=((r"scores\.(\d+)\.", r"cls_convs.\1.0."), (r"deltas\.(\d+)\.", r"reg_convs.\1.0.")))


def _torchvision_backbone(config: VGGConfig) -> Names:
    """torchvision counts the layers after conv4_3 as the first extra level: pool4 on, then fc6 and fc7 as a block."""
    after_conv4 = tuple((rf"features\.{number}\.", f"extra.0.{number - 23}.") for number in (24, 26, 28))
    return Names(rules=(*after_conv4, (r"features\.31\.", "extra.0.7.1."), (r"features\.33\.", "extra.0.7.3.")))


def _torchvision_neck(config: SSDNeckConfig) -> Names:
    if config.separable:  # three convolutions per level, each with its norm
        return Names(
            rules=(
                (r"extra\.(\d+)\.(\d)\.conv\.", r"extra.\1.\2.0."),
                (r"extra\.(\d+)\.(\d)\.norm\.", r"extra.\1.\2.1."),
            )
        )
    levels = range(len(config.extra))
    rules = [
        (rf"extra\.{i}\.{own}\.conv\.", f"extra.{i + 1}.{theirs}.") for i in levels for own, theirs in ((0, 0), (1, 2))
    ]
    return Names(rules=((r"l2_norm\.weight", "scale_weight"), *rules))


def _torchvision_head(config: SSDHeadConfig) -> Names:
    """Background is each anchor's first class in torchvision, and the last one in det."""
    separable = []
    for ours, theirs in (("scores", "classification_head"), ("deltas", "regression_head")):
        to = rf"{theirs}.module_list.\1"
        separable += [
            (rf"{ours}\.(\d+)\.depthwise\.conv\.", f"{to}.0.0."),
            (rf"{ours}\.(\d+)\.depthwise\.norm\.", f"{to}.0.1."),
            (rf"{ours}\.(\d+)\.predict\.", f"{to}.1."),
        ]
    return Names(
        rules=(
            *separable,
            (r"scores\.(\d+)\.", r"classification_head.module_list.\1."),
            (r"deltas\.(\d+)\.", r"regression_head.module_list.\1."),
        ),
        changes=_background_changes(config),
    )


def _background_changes(config: SSDHeadConfig) -> Changes:
    anchors, last = config.anchors, r"predict\." if config.separable else ""
    if isinstance(anchors, SSDAnchorsConfig):
        return tuple((rf"scores\.{level}\.{last}", _background_last(a)) for level, a in enumerate(anchors.per_level()))
    return ((rf"scores\.\d+\.{last}", _background_last(anchors.anchors_per_cell())),)


def _background_last(per_cell: int) -> Change:
    def moved(value: Tensor) -> Tensor:
        if len(value) % per_cell:
            return value  # other anchors; the mismatch is reported as a wrong shape
        return value.unflatten(0, (per_cell, -1)).roll(-1, 1).flatten(0, 1)

    return Change("background moved from the first place to the last", moved)


WEIGHT_MAPS = (
    *mmdet_maps(VGGConfig, lambda config: Names()),
    *mmdet_maps(SSDNeckConfig, lambda config: Names(rules=((r"extra\.", "extra_layers."),))),
    *mmdet_maps(SSDHeadConfig, _mmdet_head, _background_changes),
    WeightMap("torchvision", VGGConfig, _torchvision_backbone),
    WeightMap("torchvision", SSDNeckConfig, _torchvision_neck),
    WeightMap("torchvision", SSDHeadConfig, _torchvision_head),
)
