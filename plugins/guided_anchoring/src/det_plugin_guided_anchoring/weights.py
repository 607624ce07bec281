"""Weight maps of heads with guided anchors."""

from __future__ import annotations

from det_core.offers import Names
from det_core.weights.mmdet_names import conv_rules, mmdet_maps
from det_plugin_guided_anchoring.config import GARetinaNetHeadConfig, GARPNConfig

PREDICTION = ((r"prediction\.location\.", "conv_loc."), (r"prediction\.shape\.", "conv_shape."))


def _adaption(ours: str, theirs: str) -> tuple[tuple[str, str], ...]:
    return (
        (rf"{ours}\.offset\.", f"{theirs}.conv_offset."),
        (rf"{ours}\.weight", f"{theirs}.conv_adaption.weight"),
    )


def _rpn(config: GARPNConfig) -> Names:
    return Names(
        rules=(
            (r"conv\.", "rpn_conv."),
            *PREDICTION,
            *_adaption("adaption", "feature_adaption"),
            (r"scores\.", "conv_cls."),
            (r"deltas\.", "conv_reg."),
        )
    )


def _retinanet(config: GARetinaNetHeadConfig) -> Names:
    return Names(
        rules=(
            *conv_rules("cls_tower", "cls_convs", config.norm),
            *conv_rules("box_tower", "reg_convs", config.norm),
            *PREDICTION,
            *_adaption("cls_adaption", "feature_adaption_cls"),
            *_adaption("box_adaption", "feature_adaption_reg"),
            (r"scores\.", "retina_cls."),
            (r"deltas\.", "retina_reg."),
        )
    )


WEIGHT_MAPS = (
    *mmdet_maps(GARPNConfig, _rpn),
    *mmdet_maps(GARetinaNetHeadConfig, _retinanet),
)
