"""What HTC's RoI head of mmdetection has besides a cascade's: mask heads by stage, and the semantic branch."""

from __future__ import annotations

from det_core.import_config.ledger import NO_COUNTERPART, Node, shown
from det_core.import_config.parts import NOT_HERE, conv, layer_norm, roi_align
from det_core.import_config.places import ROI
from det_core.import_config.target import Target
from det_core.weights.mmdet_values import parts

SEMANTIC = f"{ROI}.semantic"


def htc_head(target: Target, node: Node, test: Node) -> None:
    """Settings of HTC.

    node: the RoI head. test: settings at test.
    """
    for theirs, ours in (("interleaved", "interleaved"), ("mask_info_flow", "information_flow")):
        target.put(f"{ROI}.{ours}", bool(node.at(theirs).take(True)), node.at(theirs))
    for place in (test, test.at("rcnn")):  # beside the settings of the second stage, or among them
        place.expect("keep_all_stages", False, why="only the last stage's boxes are kept")
    semantic, pool = node.at("semantic_head"), node.at("semantic_roi_extractor")
    if not semantic.given or semantic.value is None:
        semantic.take()
        pool.take()
        return
    if target.get(SEMANTIC) is None or semantic.type != "FusedSemanticHead":
        semantic.refuse(f"semantic head {shown(semantic.value)} {NOT_HERE}")
        pool.take()
        return
    _semantic(target, semantic, pool)
    fused = node.at("semantic_fusion")
    names = parts(fused.take(("bbox", "mask")))
    target.put(f"{SEMANTIC}.fuse_boxes", "bbox" in names, fused)
    target.put(f"{SEMANTIC}.fuse_masks", "mask" in names, fused)


def _semantic(target: Target, node: Node, pool: Node) -> None:
    node.ignore("in_channels", "num_ins", "conv_out_channels", "init_cfg")
    for theirs, ours, default in (("num_classes", "classes", 183), ("num_convs", "num_convs", 4)):
        target.copy(f"{SEMANTIC}.{ours}", node.at(theirs), default)
    target.copy_number(f"{SEMANTIC}.loss_weight", node.first("loss_seg.loss_weight", "loss_weight"), 0.2)
    criterion = node.at("loss_seg")
    criterion.ignore("type")
    for where in (criterion.at("ignore_index"), node.at("ignore_label")):
        if where.take(255) != 255:
            where.refuse(f"{shown(where.value)} {NO_COUNTERPART}; pixels with 255 are ignored")
    node.expect("fusion_level", 1, why="maps are fused at stride 8")
    layer_norm(target, node.at("norm_cfg"), f"{SEMANTIC}.norm")
    conv(target, node.at("conv_cfg"), f"{SEMANTIC}.conv")
    layer = pool.at("roi_layer")
    if pool.type != "SingleRoIExtractor" or layer.type != "RoIAlign":
        pool.refuse(f"{shown(pool.value)} {NOT_HERE}")
        return
    roi_align(target, layer, f"{SEMANTIC}.roi_pool", 14)
    pool.expect("featmap_strides", [8])
    pool.ignore("out_channels")
