"""Weight maps of the cascade head."""

from __future__ import annotations

from det_core.offers import Names, Part, WeightMap
from det_core.weights.mmdet_names import mmdet_maps
from det_plugin_cascade.config import CascadeHeadConfig, StagedHeadConfig


def cascade_names(config: StagedHeadConfig) -> Names:
    """The parts of a cascade in mmdet: a box head and a mask head per stage, and the shared trunk."""
    parts = {}
    for number in range(len(config.stages)):
        parts[f"box_heads.{number}"] = Part(config.box_head, f"bbox_head.{number}")
        if config.mask_head is not None:
            parts[f"mask_heads.{number}"] = Part(config.mask_head, f"mask_head.{number}")
    if config.trunk is not None:
        parts["trunk"] = Part(config.trunk, "shared_head")
    return Names(parts=parts)


def _detectron2(config: CascadeHeadConfig) -> Names:
    """Box heads by stage (`older_names.py` moves the number in front), and one mask head."""
    parts = {f"box_heads.{i}": Part(config.box_head, str(i)) for i in range(len(config.stages))}
    if config.mask_head is not None and config.masks_by == "one":
        parts["mask_heads.0"] = Part(config.mask_head, "")
    return Names(parts=parts)


WEIGHT_MAPS = (
    *mmdet_maps(CascadeHeadConfig, cascade_names),
    WeightMap("detectron2", CascadeHeadConfig, _detectron2),
)
