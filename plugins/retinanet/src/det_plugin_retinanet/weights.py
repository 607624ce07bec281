"""Weight maps of RetinaNet's head."""

from __future__ import annotations

from det_core.offers import Names, WeightMap
from det_core.weights.detectron2_names import detectron_maps, sorted_by_ratio
from det_core.weights.mmdet_names import Changes, conv_rules, mmdet_maps
from det_plugin_retinanet.config import RetinaNetHeadConfig


def _mmdet(config: RetinaNetHeadConfig) -> Names:
    return Names(
        rules=(
            *conv_rules("cls_tower", "cls_convs", config.norm),
            *conv_rules("box_tower", "reg_convs", config.norm),
            (r"scores\.", "retina_cls."),
            (r"deltas\.", "retina_reg."),
        )
    )


def _torchvision(config: RetinaNetHeadConfig) -> Names:
    return Names(
        rules=(
            (r"cls_tower\.(\d+)\.conv", r"classification_head.conv.\1.0"),
            (r"box_tower\.(\d+)\.conv", r"regression_head.conv.\1.0"),
            (r"cls_tower\.(\d+)\.norm", r"classification_head.conv.\1.1"),
            (r"box_tower\.(\d+)\.norm", r"regression_head.conv.\1.1"),
            (r"scores\.", "classification_head.cls_logits."),
            (r"deltas\.", "regression_head.bbox_reg."),
        )
    )


def _detectron2(config: RetinaNetHeadConfig) -> Names:
    towers = [
        (rf"{ours}\.{i}\.conv", f"{theirs}.{2 * i}")
        for i in range(config.num_convs)
        for ours, theirs in (("cls_tower", "cls_subnet"), ("box_tower", "bbox_subnet"))
    ]
    order = sorted_by_ratio(config.anchors)
    return Names(
        rules=(*towers, (r"scores\.", "cls_score."), (r"deltas\.", "bbox_pred.")),
        changes=tuple((name, change) for name in (r"scores\.", r"deltas\.") for change in order),
    )


def _detectron(config: RetinaNetHeadConfig) -> Changes:
    """Detectron's models list the ratios 1, 2, 0.5."""
    order = sorted_by_ratio(config.anchors, order=(2, 0, 1))
    return tuple((name, change) for name in (r"scores\.", r"deltas\.") for change in order)


WEIGHT_MAPS = (
    *mmdet_maps(RetinaNetHeadConfig, _mmdet),
    WeightMap("torchvision", RetinaNetHeadConfig, _torchvision),
    *detectron_maps(RetinaNetHeadConfig, _detectron2, detectron=_detectron),
)
