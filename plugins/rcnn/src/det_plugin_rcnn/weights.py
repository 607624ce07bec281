"""How other projects name the weights of the R-CNN family's heads."""

from det_core.config.base import NormConfig
from det_core.weights import Names, Part, WeightMap
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RPNConfig


def _norm_name(norm: NormConfig | None) -> str:
    """mmdet's convolution modules call a norm after its kind."""
    return "gn" if norm is not None and norm.type == "group_norm" else "bn"


def _rpn(config: RPNConfig) -> Names:
    return Names(rules=((r"conv\.", "rpn_conv."), (r"scores\.", "rpn_cls."), (r"deltas\.", "rpn_reg.")))


def _box_head(config: FCBoxHeadConfig) -> Names:
    return Names(
        rules=(
            (r"convs\.(\d+)\.norm", rf"shared_convs.\1.{_norm_name(config.norm)}"),
            (r"convs\.", "shared_convs."),
            (r"fcs\.", "shared_fcs."),
            (r"scores\.", "fc_cls."),
            (r"deltas\.", "fc_reg."),
        )
    )


def _mask_head(config: ConvMaskHeadConfig) -> Names:
    return Names(
        rules=(
            (r"convs\.(\d+)\.norm", rf"convs.\1.{_norm_name(config.norm)}"),
            (r"logits\.", "conv_logits."),
        )
    )


def _roi_head(config: RCNNHeadConfig) -> Names:
    parts = {"box_head": Part(config.box_head, "bbox_head")}
    if config.mask_head is not None:
        parts["mask_head"] = Part(config.mask_head, "mask_head")
    if config.trunk is not None:
        parts["trunk"] = Part(config.trunk, "shared_head")
    return Names(parts=parts)


WEIGHT_MAPS = (
    WeightMap("mmdet", RPNConfig, _rpn),
    WeightMap("mmdet", FCBoxHeadConfig, _box_head),
    WeightMap("mmdet", ConvMaskHeadConfig, _mask_head),
    WeightMap("mmdet", RCNNHeadConfig, _roi_head),
)
