"""Heads of detectron2's models as changes to those of the nearest recipe."""

from __future__ import annotations

from typing import Any

from det_core.import_config.ledger import NO_COUNTERPART, Node, shown
from det_core.import_config.places import DENSE, ROI
from det_core.import_config.target import Target
from det_core.import_config.yacs_defaults import taken
from det_core.import_config.yacs_parts import put_all, put_key, put_norm
from det_core.weights.mmdet_values import number, numbers, parts

# Settings with the same meaning on both sides: detectron2's key below a part, and ours.
_RPN = {
    "PRE_NMS_TOPK_TRAIN": "train_limits.before_nms",
    "POST_NMS_TOPK_TRAIN": "train_limits.after_nms",
    "PRE_NMS_TOPK_TEST": "test_limits.before_nms",
    "POST_NMS_TOPK_TEST": "test_limits.after_nms",
    "NMS_THRESH": "nms_threshold",
    "BATCH_SIZE_PER_IMAGE": "sampler.count",
    "POSITIVE_FRACTION": "sampler.positive_fraction",
}
_ROI = {
    "SCORE_THRESH_TEST": "score_threshold",
    "NMS_THRESH_TEST": "nms_threshold",
}
_RETINANET = {
    "NUM_CONVS": "num_convs",
    "PRIOR_PROB": "prior",
    "SCORE_THRESH_TEST": "score_threshold",
    "TOPK_CANDIDATES_TEST": "before_nms",
    "NMS_THRESH_TEST": "nms_threshold",
}
_SAMPLING = {
    "BATCH_SIZE_PER_IMAGE": "sampler.count",
    "POSITIVE_FRACTION": "sampler.positive_fraction",
    "PROPOSAL_APPEND_GT": "add_ground_truth",
}
_BOX_HEAD = {
    "NUM_CONV": "num_convs",
    "CONV_DIM": "conv_channels",
    "NUM_FC": "num_fcs",
    "FC_DIM": "fc_channels",
    "CLS_AGNOSTIC_BBOX_REG": "class_agnostic",
}
_MASK_HEAD = {"NUM_CONV": "num_convs", "CONV_DIM": "channels", "CLS_AGNOSTIC_MASK": "class_agnostic"}
_POOL = {"POOLER_RESOLUTION": "size", "POOLER_SAMPLING_RATIO": "sampling"}
_POOLS = {"ROIAlignV2": "aligned", "ROIAlign": "unaligned"}


def _loss(target: Target, root: Node, section: str, path: str, beta: str = "SMOOTH_L1_BETA", factor: Any = 1.0) -> None:
    """The loss of boxes. A smooth L1 loss with beta 0 is the L1 loss."""
    node, kind = root.at(f"{section}.BBOX_REG_LOSS_TYPE"), taken(root, f"{section}.BBOX_REG_LOSS_TYPE")
    bend = number(taken(root, f"{section}.{beta}")) or 0.0
    if kind not in ("smooth_l1", "giou"):
        node.refuse(f"loss {kind!r} {NO_COUNTERPART}, only smooth_l1 and giou; the recipe's is kept")
        return
    smooth: dict[str, Any] = {"type": "smooth_l1", "beta": float(bend)} if bend else {"type": "l1"}
    made = smooth if kind == "smooth_l1" else {"type": "giou"}
    target.put(path, {**made, "weight": float(factor)}, node if node.given else root.at(f"{section}.{beta}"))


def _deviations(target: Target, root: Node, key: str, weights: Any, path: str) -> None:
    """Deviations of box targets: detectron2 multiplies by weights."""
    found = numbers(weights) or ()
    if len(found) == 4 and all(found):
        target.put(f"{path}.stds", [1 / value for value in found], root.at(key))
    else:
        root.at(key).refuse(f"{shown(weights)}: expected four weights above 0")


def _anchors(target: Target, root: Node, strides: list[int]) -> None:
    path, theirs = f"{DENSE}.anchors", "MODEL.ANCHOR_GENERATOR"
    sizes, ratios = (taken(root, f"{theirs}.{key}") for key in ("SIZES", "ASPECT_RATIOS"))
    node, by_ratio = root.at(f"{theirs}.SIZES"), root.at(f"{theirs}.ASPECT_RATIOS")
    levels = [numbers(parts(level)) for level in parts(sizes)]
    if None in levels or not levels:
        node.refuse(f"{shown(sizes)}: expected a list of sizes for each level")
    elif len(levels) == 1 and len(strides) > 1:
        target.put(path, {"sides": [float(v) for v in levels[0] or ()]}, node)
    else:
        scales = [[float(v) / stride for v in level or ()] for level, stride in zip(levels, strides, strict=False)]
        if len(levels) == len(strides) and all(_near(level, scales[0]) for level in scales):
            if not _near(scales[0], target.get(f"{path}.scales")):
                target.put(f"{path}.scales", scales[0], node)
        else:
            node.refuse(f"{shown(sizes)}: anchors here have the same sizes, in strides, on all {len(strides)} levels")
    found = [numbers(parts(level)) for level in parts(ratios)]
    if found and None not in found and all(level == found[0] for level in found):
        target.put(f"{path}.ratios", [float(v) for v in found[0] or ()], by_ratio)
    else:
        by_ratio.refuse(f"{shown(ratios)}: anchors here have the same ratios on all levels")
    root.at(theirs).expect("NAME", "DefaultAnchorGenerator")
    root.at(theirs).expect("OFFSET", 0.0, why="anchors here are centred on the corner of their cell")
    root.at(theirs).ignore("ANGLES")


def _near(some: list[float], others: Any) -> bool:
    return len(some) == len(others or ()) and all(
        abs(a - b) <= 1e-6 * abs(b) for a, b in zip(some, others, strict=True)
    )


def _strides(target: Target) -> list[int]:
    if target.get("detector.neck") is None:
        return [16]
    first = 4 * 2 ** int(target.get("detector.neck.start"))
    return [first * 2**level for level in range(int(target.get("detector.neck.levels")))]


def _labels(target: Target, root: Node, key: str, path: str) -> None:
    """The thresholds of an assigner of anchors."""
    found = numbers(taken(root, key)) or ()
    if len(found) == 2:
        target.put(f"{path}.negative", float(found[0]), root.at(key))
        target.put(f"{path}.positive", float(found[1]), root.at(key))
    else:
        root.at(key).refuse(f"{shown(root.at(key).value)}: expected two thresholds")


def rpn(target: Target, root: Node) -> None:
    """The RPN."""
    theirs, node = "MODEL.RPN", root.at("MODEL.RPN")
    put_all(target, root, theirs, _RPN, DENSE)
    put_key(target, root, f"{theirs}.BATCH_SIZE_PER_IMAGE", f"{DENSE}.loss_anchors")
    _labels(target, root, f"{theirs}.IOU_THRESHOLDS", f"{DENSE}.assigner")
    weight = number(taken(root, f"{theirs}.LOSS_WEIGHT")) or 0.0
    target.put(f"{DENSE}.cls_loss.weight", float(weight), node.at("LOSS_WEIGHT"))
    factor = weight * (number(taken(root, f"{theirs}.BBOX_REG_LOSS_WEIGHT")) or 0.0)
    _loss(target, root, theirs, f"{DENSE}.box_loss", factor=factor)
    _deviations(target, root, f"{theirs}.BBOX_REG_WEIGHTS", taken(root, f"{theirs}.BBOX_REG_WEIGHTS"), f"{DENSE}.coder")
    _anchors(target, root, _strides(target))
    dims = numbers(taken(root, f"{theirs}.CONV_DIMS")) or (-1,)
    target.put(f"{DENSE}.num_convs", len(dims), node.at("CONV_DIMS"))
    if dims[-1] > 0:
        target.put(f"{DENSE}.channels", int(dims[-1]), node.at("CONV_DIMS"))
    elif target.has("detector.neck.channels"):
        target.put(f"{DENSE}.channels", target.get("detector.neck.channels"), node.at("CONV_DIMS"))
    least = root.at("MODEL.PROPOSAL_GENERATOR.MIN_SIZE")
    target.put(f"{DENSE}.min_size", float(taken(root, "MODEL.PROPOSAL_GENERATOR.MIN_SIZE")), least)
    node.expect("HEAD_NAME", "StandardRPNHead")
    node.expect("BOUNDARY_THRESH", -1)
    node.expect("IOU_LABELS", [0, -1, 1])
    _features(target, node)


def _features(target: Target, node: Node) -> None:
    """All levels of the neck, or the one stage of a backbone without."""
    levels = ["p2", "p3", "p4", "p5", "p6", "p7"]
    if target.get("detector.neck") is None:
        node.expect("IN_FEATURES", ["res4"], ["res5"])
        return
    start = int(target.get("detector.neck.start"))
    own = levels[start : start + int(target.get("detector.neck.levels"))]
    node.expect("IN_FEATURES", own, why=f"{shown(node.at('IN_FEATURES').value)}; here it works on all of {own}")


def retinanet(target: Target, root: Node) -> None:
    """RetinaNet's head."""
    theirs, node = "MODEL.RETINANET", root.at("MODEL.RETINANET")
    put_all(target, root, theirs, _RETINANET, DENSE)
    _labels(target, root, f"{theirs}.IOU_THRESHOLDS", f"{DENSE}.assigner")
    _loss(target, root, theirs, f"{DENSE}.box_loss", "SMOOTH_L1_LOSS_BETA")
    for key, ours in (("FOCAL_LOSS_GAMMA", "gamma"), ("FOCAL_LOSS_ALPHA", "alpha")):
        target.put(f"{DENSE}.cls_loss.{ours}", float(taken(root, f"{theirs}.{key}")), node.at(key))
    _deviations(target, root, f"{theirs}.BBOX_REG_WEIGHTS", taken(root, f"{theirs}.BBOX_REG_WEIGHTS"), f"{DENSE}.coder")
    put_key(target, root, "TEST.DETECTIONS_PER_IMAGE", f"{DENSE}.max_detections")
    put_norm(target, root, f"{theirs}.NORM", f"{DENSE}.norm")
    if target.has("detector.neck.channels"):
        target.put(f"{DENSE}.channels", target.get("detector.neck.channels"), root.at("MODEL.FPN.OUT_CHANNELS"))
    _anchors(target, root, _strides(target))
    node.expect("IOU_LABELS", [0, -1, 1])
    _features(target, node)


def roi_head(target: Target, root: Node) -> None:
    """The second stage: pooling, box head or stages of a cascade, mask head, and what is trained."""
    theirs, node = "MODEL.ROI_HEADS", root.at("MODEL.ROI_HEADS")
    put_all(target, root, theirs, _ROI, ROI)
    put_key(target, root, "TEST.DETECTIONS_PER_IMAGE", f"{ROI}.max_detections")
    first = f"{ROI}.stages[0]" if target.get(f"{ROI}.type") == "cascade" else ROI
    put_all(target, root, theirs, _SAMPLING, first)
    _box_head(target, root)
    if target.get(f"{ROI}.mask_head") is not None:
        _mask_head(target, root)
    node.expect("IOU_LABELS", [0, 1])
    pyramid = target.get("detector.neck") is not None
    node.expect("IN_FEATURES", ["p2", "p3", "p4", "p5"] if pyramid else ["res4"], *([] if pyramid else [["res5"]]))


def _threshold(target: Target, node: Node, value: Any, path: str) -> None:
    if number(value) is None:
        node.refuse(f"{shown(value)}: expected one threshold")
        return
    for ours in ("positive", "negative", "min_positive"):
        target.put(f"{path}.assigner.{ours}", float(value), node)


def _box_head(target: Target, root: Node) -> None:
    theirs, node = "MODEL.ROI_BOX_HEAD", root.at("MODEL.ROI_BOX_HEAD")
    if taken(root, "MODEL.ROI_HEADS.NAME") == "Res5ROIHeads":  # which has no layers but those of the stage
        node.ignore("NUM_FC", "FC_DIM", "NUM_CONV", "CONV_DIM", "NORM")
        put_key(target, root, f"{theirs}.CLS_AGNOSTIC_BBOX_REG", f"{ROI}.box_head.class_agnostic")
    else:
        put_all(target, root, theirs, _BOX_HEAD, f"{ROI}.box_head")
        put_norm(target, root, f"{theirs}.NORM", f"{ROI}.box_head.norm")
    _pool(target, root, theirs, "roi_pool")
    node.ignore("NAME")
    node.expect("TRAIN_ON_PRED_BOXES", False)
    node.ignore("FED_LOSS_FREQ_WEIGHT_POWER", "FED_LOSS_NUM_CLASSES")
    for key in ("USE_FED_LOSS", "USE_SIGMOID_CE"):
        node.expect(key, False)
    factor = number(taken(root, f"{theirs}.BBOX_REG_LOSS_WEIGHT")) or 0.0
    thresholds = root.at("MODEL.ROI_HEADS.IOU_THRESHOLDS")
    shared = parts(taken(root, thresholds.name))
    if target.get(f"{ROI}.type") != "cascade":
        _loss(target, root, theirs, f"{ROI}.box_loss", factor=factor)
        key = f"{theirs}.BBOX_REG_WEIGHTS"
        _deviations(target, root, key, taken(root, key), f"{ROI}.coder")
        _threshold(target, thresholds, shared[0] if len(shared) == 1 else shared, ROI)
        return
    node.ignore("BBOX_REG_WEIGHTS")  # each stage has its own
    thresholds.take()
    stages = target.get(f"{ROI}.stages") or []
    weights, overlaps = (
        parts(taken(root, f"MODEL.ROI_BOX_CASCADE_HEAD.{key}")) for key in ("BBOX_REG_WEIGHTS", "IOUS")
    )
    if not len(weights) == len(overlaps) == len(stages):
        where = root.at("MODEL.ROI_BOX_CASCADE_HEAD")
        where.refuse(f"{len(overlaps)} stages; the recipe has {len(stages)}, which are kept")
        return
    for number_, (weight, overlap) in enumerate(zip(weights, overlaps, strict=True)):
        stage = f"{ROI}.stages[{number_}]"
        _loss(target, root, theirs, f"{stage}.box_loss", factor=factor)
        _deviations(target, root, "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", weight, f"{stage}.coder")
        _threshold(target, root.at("MODEL.ROI_BOX_CASCADE_HEAD.IOUS"), overlap, stage)


def _mask_head(target: Target, root: Node) -> None:
    theirs, node = "MODEL.ROI_MASK_HEAD", root.at("MODEL.ROI_MASK_HEAD")
    put_all(target, root, theirs, _MASK_HEAD, f"{ROI}.mask_head")
    put_norm(target, root, f"{theirs}.NORM", f"{ROI}.mask_head.norm")
    if target.get(f"{ROI}.mask_roi_pool") is None:  # masks are of the regions' features
        node.ignore("POOLER_RESOLUTION", "POOLER_SAMPLING_RATIO", "POOLER_TYPE")
    else:
        _pool(target, root, theirs, "mask_roi_pool")
    node.expect("NAME", "MaskRCNNConvUpsampleHead")


def _pool(target: Target, root: Node, section: str, ours: str) -> None:
    path = f"{ROI}.{ours}"
    put_all(target, root, section, _POOL, path)
    node, kind = root.at(f"{section}.POOLER_TYPE"), taken(root, f"{section}.POOLER_TYPE")
    if kind in _POOLS:
        target.put(f"{path}.alignment", _POOLS[kind], node)
    else:
        node.refuse(f"pooling {shown(kind)} {NO_COUNTERPART}, only {' and '.join(_POOLS)}; the recipe's is kept")
