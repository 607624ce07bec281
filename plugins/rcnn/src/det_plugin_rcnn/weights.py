"""Weight maps of RPN and of the heads of Faster and Mask R-CNN."""

from det_core.offers import Change, Names, Part, WeightMap
from det_core.weights.mmdet_names import conv_rules
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RegionHeadConfig, RPNConfig


def _rpn(config: RPNConfig) -> Names:
    return Names(rules=((r"conv\.", "rpn_conv."), (r"scores\.", "rpn_cls."), (r"deltas\.", "rpn_reg.")))


def _box_head(config: FCBoxHeadConfig) -> Names:
    return Names(
        rules=(
            *conv_rules("convs", "shared_convs", config.norm),
            (r"fcs\.", "shared_fcs."),
            (r"scores\.", "fc_cls."),
            (r"deltas\.", "fc_reg."),
        )
    )


def _mask_head(config: ConvMaskHeadConfig) -> Names:
    return Names(rules=(*conv_rules("convs", "convs", config.norm), (r"logits\.", "conv_logits.")))


def pooling_parts(config: RegionHeadConfig) -> dict[str, Part]:
    """The pooling layers, which may have weights (RoIAlign has none)."""
    parts = {"roi_pool": Part(config.roi_pool, "bbox_roi_extractor")}
    if config.mask_roi_pool is not None:
        parts["mask_roi_pool"] = Part(config.mask_roi_pool, "mask_roi_extractor")
    return parts


def _roi_head(config: RCNNHeadConfig) -> Names:
    parts = pooling_parts(config) | {"box_head": Part(config.box_head, "bbox_head")}
    if config.mask_head is not None:
        parts["mask_head"] = Part(config.mask_head, "mask_head")
    if config.trunk is not None:
        parts["trunk"] = Part(config.trunk, "shared_head")
    return Names(parts=parts)


# torchvision reserves class 0 for background: the first scores, and unused deltas and masks.
BACKGROUND_LAST = Change("background moved from the first place to the last", lambda value: value.roll(-1, 0))
NO_BACKGROUND_BOX = Change("background's box dropped", lambda value: value[4:])
NO_BACKGROUND_MASK = Change("background's mask dropped", lambda value: value[1:])


def _torchvision_rpn(config: RPNConfig) -> Names:
    return Names(rules=((r"conv\.", "conv.0.0."), (r"scores\.", "cls_logits."), (r"deltas\.", "bbox_pred.")))


def _torchvision_box_head(config: FCBoxHeadConfig) -> Names:
    rules = [(r"scores\.", "box_predictor.cls_score."), (r"deltas\.", "box_predictor.bbox_pred.")]
    if config.num_convs:  # a sequence: convolutions, flatten, then pairs of a layer and a ReLU
        rules += [(r"convs\.(\d+)\.conv", r"box_head.\1.0"), (r"convs\.(\d+)\.norm", r"box_head.\1.1")]
        rules += [(rf"fcs\.{i}\.", f"box_head.{config.num_convs + 1 + 2 * i}.") for i in range(config.num_fcs)]
    else:
        rules += [(rf"fcs\.{i}\.", f"box_head.fc{6 + i}.") for i in range(config.num_fcs)]
    changes = [(r"scores\.", BACKGROUND_LAST)]
    if not config.class_agnostic:
        changes.append((r"deltas\.", NO_BACKGROUND_BOX))
    return Names(rules=tuple(rules), changes=tuple(changes))


def _torchvision_mask_head(config: ConvMaskHeadConfig) -> Names:
    rules = (
        (r"convs\.(\d+)\.conv", r"mask_head.\1.0"),
        (r"convs\.(\d+)\.norm", r"mask_head.\1.1"),
        (r"upsample\.", "mask_predictor.conv5_mask."),
        (r"logits\.", "mask_predictor.mask_fcn_logits."),
    )
    changes = () if config.class_agnostic else ((r"logits\.", NO_BACKGROUND_MASK),)
    return Names(rules=rules, changes=changes)


def _torchvision_roi_head(config: RCNNHeadConfig) -> Names:
    parts = {"box_head": Part(config.box_head, "")}
    if config.mask_head is not None:
        parts["mask_head"] = Part(config.mask_head, "")
    return Names(parts=parts)


WEIGHT_MAPS = (
    WeightMap("mmdet", RPNConfig, _rpn),
    WeightMap("mmdet", FCBoxHeadConfig, _box_head),
    WeightMap("mmdet", ConvMaskHeadConfig, _mask_head),
    WeightMap("mmdet", RCNNHeadConfig, _roi_head),
    WeightMap("torchvision", RPNConfig, _torchvision_rpn),
    WeightMap("torchvision", FCBoxHeadConfig, _torchvision_box_head),
    WeightMap("torchvision", ConvMaskHeadConfig, _torchvision_mask_head),
    WeightMap("torchvision", RCNNHeadConfig, _torchvision_roi_head),
)
