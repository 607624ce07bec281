"""Weight maps of RPN and of the heads of Faster and Mask R-CNN."""

from det_core.offers import Change, Names, Part, WeightMap
from det_core.weights.detectron2_names import detectron_maps, numbered_convs, sorted_by_ratio
from det_core.weights.mmdet_names import (
    BACKGROUND_LAST,
    NO_BACKGROUND_BOX,
    NO_BACKGROUND_MASK,
    Changes,
    conv_rules,
    mmdet_maps,
)
from det_plugin_rcnn.config import ConvMaskHeadConfig, FCBoxHeadConfig, RCNNHeadConfig, RegionHeadConfig, RPNConfig


def _rpn(config: RPNConfig) -> Names:
    # mmdet's only convolution is a plain one; several are a sequence of convolution modules.
    convs = _rpn_convs(config, "rpn_conv.{}.conv.") if config.num_convs > 1 else ((r"conv\.", "rpn_conv."),)
    return Names(rules=(*convs, (r"scores\.", "rpn_cls."), (r"deltas\.", "rpn_reg.")))


def _rpn_convs(config: RPNConfig, theirs: str) -> tuple[tuple[str, str], ...]:
    """The rules of an RPN's convolutions; `theirs` has a place for the number of each."""
    ours = [r"conv\.", *(rf"more_convs\.{i}\." for i in range(config.num_convs - 1))]
    return tuple((rule, theirs.format(number)) for number, rule in enumerate(ours))


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
    return named_parts(config, roi_pool="bbox_roi_extractor", mask_roi_pool="mask_roi_extractor")


def named_parts(config: RegionHeadConfig, **theirs: str) -> dict[str, Part]:
    """Those of these parts that a head has, with their names in another project."""
    found = {ours: getattr(config, ours) for ours in theirs}
    return {ours: Part(part, theirs[ours]) for ours, part in found.items() if part is not None}


def _roi_head(config: RCNNHeadConfig) -> Names:
    parts = named_parts(config, box_head="bbox_head", mask_head="mask_head", trunk="shared_head")
    return Names(parts=pooling_parts(config) | parts)


def box_changes(config: FCBoxHeadConfig) -> Changes:
    """What becomes of the scores and deltas of background, where it is the first class."""
    scores = (r"scores\.", BACKGROUND_LAST)
    return (scores,) if config.class_agnostic else (scores, (r"deltas\.", NO_BACKGROUND_BOX))


def mask_changes(config: ConvMaskHeadConfig) -> Changes:
    """What becomes of the mask of background, where it is the first class."""
    return () if config.class_agnostic else ((r"logits\.", NO_BACKGROUND_MASK),)


def _torchvision_rpn(config: RPNConfig) -> Names:
    convs = _rpn_convs(config, "conv.{}.0.")
    return Names(rules=(*convs, (r"scores\.", "cls_logits."), (r"deltas\.", "bbox_pred.")))


def _torchvision_box_head(config: FCBoxHeadConfig) -> Names:
    rules = [(r"scores\.", "box_predictor.cls_score."), (r"deltas\.", "box_predictor.bbox_pred.")]
    if config.num_convs:  # a sequence: convolutions, flatten, then pairs of a layer and a ReLU
        rules += [(r"convs\.(\d+)\.conv", r"box_head.\1.0"), (r"convs\.(\d+)\.norm", r"box_head.\1.1")]
        rules += [(rf"fcs\.{i}\.", f"box_head.{config.num_convs + 1 + 2 * i}.") for i in range(config.num_fcs)]
    else:
        rules += [(rf"fcs\.{i}\.", f"box_head.fc{6 + i}.") for i in range(config.num_fcs)]
    return Names(rules=tuple(rules), changes=box_changes(config))


def _torchvision_mask_head(config: ConvMaskHeadConfig) -> Names:
    rules = (
        (r"convs\.(\d+)\.conv", r"mask_head.\1.0"),
        (r"convs\.(\d+)\.norm", r"mask_head.\1.1"),
        (r"upsample\.", "mask_predictor.conv5_mask."),
        (r"logits\.", "mask_predictor.mask_fcn_logits."),
    )
    return Names(rules=rules, changes=mask_changes(config))


def _torchvision_roi_head(config: RCNNHeadConfig) -> Names:
    return Names(parts=named_parts(config, box_head="", mask_head=""))


def _detectron2_rpn(config: RPNConfig) -> Names:
    order = sorted_by_ratio(config.anchors)
    convs = _rpn_convs(config, "conv.conv{}.") if config.num_convs > 1 else ()
    return Names(
        rules=(*convs, (r"scores\.", "objectness_logits."), (r"deltas\.", "anchor_deltas.")),
        changes=tuple((name, change) for name in (r"scores\.", r"deltas\.") for change in order),
    )


def _detectron2_box_head(config: FCBoxHeadConfig) -> Names:
    rules = [
        *numbered_convs("convs", "box_head.conv", config.num_convs),
        *((rf"fcs\.{i}\.", f"box_head.fc{i + 1}.") for i in range(config.num_fcs)),
        (r"scores\.", "box_predictor.cls_score."),
        (r"deltas\.", "box_predictor.bbox_pred."),
    ]
    return Names(rules=tuple(rules))


def _detectron_box_head(config: FCBoxHeadConfig) -> Changes:
    """As `box_changes`; Detectron has a box of background and one of all classes, if these share one."""
    last = Change("background's box dropped", lambda value: value[-4:])
    return (*box_changes(config), (r"deltas\.", last)) if config.class_agnostic else box_changes(config)


def _detectron2_mask_head(config: ConvMaskHeadConfig) -> Names:
    rules = [
        *numbered_convs("convs", "mask_head.mask_fcn", config.num_convs),
        (r"upsample\.", "mask_head.deconv."),
        (r"logits\.", "mask_head.predictor."),
    ]
    return Names(rules=tuple(rules))


def _detectron2_roi_head(config: RCNNHeadConfig) -> Names:
    return Names(parts=named_parts(config, box_head="", mask_head="", trunk=""))


WEIGHT_MAPS = (
    *mmdet_maps(RPNConfig, _rpn),
    *mmdet_maps(FCBoxHeadConfig, _box_head, box_changes),
    *mmdet_maps(ConvMaskHeadConfig, _mask_head, mask_changes),
    *mmdet_maps(RCNNHeadConfig, _roi_head),
    WeightMap("torchvision", RPNConfig, _torchvision_rpn),
    WeightMap("torchvision", FCBoxHeadConfig, _torchvision_box_head),
    WeightMap("torchvision", ConvMaskHeadConfig, _torchvision_mask_head),
    WeightMap("torchvision", RCNNHeadConfig, _torchvision_roi_head),
    *detectron_maps(RPNConfig, _detectron2_rpn),
    *detectron_maps(FCBoxHeadConfig, _detectron2_box_head, box_changes, _detectron_box_head),
    *detectron_maps(ConvMaskHeadConfig, _detectron2_mask_head, mask_changes),
    *detectron_maps(RCNNHeadConfig, _detectron2_roi_head),
)
