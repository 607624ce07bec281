"""Dense heads and RoI heads of mmdetection as changes to those of the nearest recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from det_core.import_config.guided_head import HEADS, guided_head
from det_core.import_config.htc_head import htc_head
from det_core.import_config.ledger import Node, shown
from det_core.import_config.parts import NOT_HERE, assigner, coder, conv, layer_norm, loss, roi_align, sampler
from det_core.import_config.places import DENSE, ROI, phase
from det_core.import_config.target import Target
from det_core.weights.mmdet_facts import FileFacts
from det_core.weights.mmdet_values import numbers, parts, whole


def dense_head(target: Target, node: Node, train: Node, facts: FileFacts) -> None:
    """The head that works on every location: RPN, RetinaNet, SSD, and those of Guided Anchoring."""
    kinds = {"rpn": "RPNHead", "retinanet": "RetinaHead", "ssd": "SSDHead"}
    kind = target.get(f"{DENSE}.type")
    if kind in HEADS and node.type == HEADS[kind]:
        guided_head(target, node, train.at("rpn") if kind == "ga_rpn" else train, _strides(target))
        return
    if kinds.get(kind or "") != node.type:
        node.refuse(f"the settings of {node.type} are not compared; the recipe's {kind} is kept")
        return
    node.ignore("in_channels", "num_classes", "init_cfg")
    node.expect("reg_decoded_bbox", False, _decoded(node))
    anchors(target, node, facts)
    coder(target, node, f"{DENSE}.coder")
    loss(target, node.at("loss_cls"), f"{DENSE}.cls_loss")
    loss(target, node.at("loss_bbox"), f"{DENSE}.box_loss")
    if kind == "ssd":
        node.ignore("input_size", "act_cfg")
        node.expect("use_depthwise", False)
    else:
        target.copy(f"{DENSE}.channels", node.at("feat_channels"), 256)
        target.copy(f"{DENSE}.num_convs", node.first("stacked_convs", "num_convs"), 1 if kind == "rpn" else 4)
        conv(target, node.at("conv_cfg"), f"{DENSE}.conv")
        if kind == "retinanet":
            layer_norm(target, node.at("norm_cfg"), f"{DENSE}.norm")
    own = train.at("rpn") if kind == "rpn" else train
    assigner(target, own.at("assigner"), f"{DENSE}.assigner")
    sampler(target, own.at("sampler"), f"{DENSE}.sampler")
    border = own.at("allowed_border")
    if border.given and target.has(f"{DENSE}.allowed_border"):
        target.copy(f"{DENSE}.allowed_border", border)
    else:
        own.expect("allowed_border", -1)
    if kind == "ssd":
        target.copy_number(f"{DENSE}.negatives", own.at("neg_pos_ratio"), 3.0)
        target.copy_number(f"{DENSE}.box_loss.beta", own.at("smoothl1_beta"), 1.0)
    own.expect("pos_weight", -1)
    own.ignore("debug", "gamma", "alpha")


def anchors(target: Target, head: Node, facts: FileFacts) -> None:
    """Scales, ratios and strides of the anchors."""
    found, path = facts.anchors, f"{DENSE}.anchors"
    made = head.at("anchor_generator") if head.at("anchor_generator").given else head
    ratios = made.first("ratios", "anchor_ratios")
    if found.scales is not None:
        source = made.first("scales", "anchor_scales", "octave_base_scale")
        target.put(f"{path}.scales", [float(v) for v in found.scales], source)
    if found.ratios is not None:
        target.put(f"{path}.ratios", [float(v) for v in found.ratios], ratios)
    if found.sizes is not None:
        target.put(f"{path}.sizes", list(found.sizes), made.first("basesize_ratio_range", "input_size"))
    if found.level_ratios is not None:
        target.put(f"{path}.ratios", [list(level) for level in found.level_ratios], ratios)
    made.ignore("octave_base_scale", "scales_per_octave", "basesize_ratio_range", "input_size", "scale_major")
    strides = made.first("strides", "anchor_strides")
    expected = _strides(target)
    if strides.given and numbers(strides.take()) not in (None, expected):
        strides.refuse(f"{shown(strides.value)}; anchors have the strides of their feature maps, here {list(expected)}")
    made.ignore("strides", "anchor_strides")
    if made is not head:
        made.ignore("type")
        made.expect("center_offset", 0.0)


def _strides(target: Target) -> tuple[float, ...]:
    """The strides of the maps that the dense head works on."""
    kind = target.get("detector.neck.type")
    if kind == "fpn":
        first = 4 * 2 ** min(max(whole(target.get("detector.neck.start")) or 0, 0), 4)
        return tuple(
            float(first * 2**level) for level in range(min(whole(target.get("detector.neck.levels")) or 0, 16))
        )
    if kind == "ssd_neck":
        return (8.0, 16.0, *(float(level["spacing"]) for level in target.get("detector.neck.extra")))
    return (16.0,)


def roi_head(target: Target, root: Node, model: Node) -> None:
    """The second stage: pooling, box head, mask head, and what is trained."""
    kind = target.get(f"{ROI}.type")
    node = model.at("roi_head") if model.at("roi_head").given else model
    if node is not model:
        node.ignore("type", "num_stages", "stage_loss_weights")
    else:
        model.ignore("num_stages")
    _pool(target, node.at("bbox_roi_extractor"), f"{ROI}.roi_pool")
    _pool(target, node.at("mask_roi_extractor"), f"{ROI}.mask_roi_pool")
    shared = node.at("shared_head")
    if shared.given and target.get(f"{ROI}.trunk") is not None:
        shared.take()
    boxes, train = node.at("bbox_head"), phase(root, "train_cfg").at("rcnn")
    if kind in ("cascade", "htc"):
        weights = (node if node is not model else phase(root, "train_cfg")).at("stage_loss_weights")
        _stages(target, boxes, train, weights)
    else:
        _box_head(target, boxes.items()[0] if boxes.items() else boxes, ROI)
        _box_training(target, train.items()[0] if train.items() else train, ROI)
    if kind == "htc":
        htc_head(target, node, phase(root, "test_cfg"))
    masks = node.at("mask_head")
    if masks.given and masks.value is not None:
        _mask_heads(target, masks)


def _stages(target: Target, boxes: Node, train: Node, weights: Node) -> None:
    """The stages of a cascade."""
    stages = target.get(f"{ROI}.stages") or []
    found = boxes.items() if isinstance(boxes.value, (list, tuple)) else []
    if len(found) != len(stages):
        boxes.refuse(f"{len(found) or 'one'} for all stages; the recipe has {len(stages)} stages, which are kept")
    for number, head in enumerate(found[: len(stages)]):
        _box_head(target, head, f"{ROI}.stages[{number}]", shared=ROI)
    for number, stage in enumerate(train.items()[: len(stages)]):
        _box_training(target, stage, f"{ROI}.stages[{number}]")
    for number, weight in enumerate(numbers(weights.take()) or ()):
        if number < len(stages):
            target.put(f"{ROI}.stages[{number}].loss_weight", float(weight), weights)


def _mask_heads(target: Target, node: Node) -> None:
    """The mask head, or of those of several stages the first."""
    heads = node.items()
    if heads:
        _mask_head(target, heads[0])
    for other in heads[1:]:
        same = _without_flow(other.value) == _without_flow(heads[0].value)
        other.take() if same else other.refuse("differs from the first stage's, which is used for all")


def _without_flow(value: Any) -> Any:
    """A mask head without what says whether it gets the features of the one before."""
    return {k: v for k, v in value.items() if k != "with_conv_res"} if isinstance(value, Mapping) else value


def _pool(target: Target, node: Node, path: str) -> None:
    """An extractor of regions; of several equal ones, the first."""
    items = node.items()
    if not items:
        return
    for other in items[1:]:
        other.take() if other.value == items[0].value else other.refuse("differs from the first stage's, which is used")
    one = items[0]
    if one.type != "SingleRoIExtractor":
        one.refuse(f"{shown(one.value)} {NOT_HERE}")
        return
    one.ignore("out_channels")
    layer = one.at("roi_layer")
    kind = target.get(f"{path}.type")
    if kind == "deform_roi_pool" and layer.type in _POOLS:
        layer.take()
    elif kind == "roi_align" and layer.type == "RoIAlign":
        roi_align(target, layer, path, 7)
        layer.expect("aligned", True, *([False] if target.get(f"{path}.alignment") == "v1" else []))
        layer.expect("pool_mode", "avg")
        layer.ignore("use_torchvision")
    else:
        layer.refuse(f"pooling {shown(layer.value)} {NOT_HERE} ({kind})")
    strides = one.at("featmap_strides")
    target.put(f"{path}.strides", list(parts(strides.take((4, 8, 16, 32)))), strides)
    target.copy_number(f"{path}.finest_scale", one.at("finest_scale"), 56)


_POOLS = (
    *("DeformRoIPoolingPack", "DeformRoIPoolPack"),
    *("ModulatedDeformRoIPoolingPack", "ModulatedDeformRoIPoolPack"),
)
# Classes of box heads, and their convolutions and fully connected layers.
_BOX_HEADS = {
    "Shared2FCBBoxHead": (0, 2),
    "SharedFCBBoxHead": (0, 2),
    "Shared4Conv1FCBBoxHead": (4, 1),
    "ConvFCBBoxHead": (0, 0),
    "BBoxHead": (0, 0),
}


def _box_head(target: Target, node: Node, path: str, shared: str = "") -> None:
    """A box head; shared: the RoI head, if the head's layers are set there for all stages."""
    if not node.given:
        return
    if node.type not in _BOX_HEADS:
        node.refuse(f"box head {shown(node.value)} {NOT_HERE}")
        return
    place = f"{shared or path}.box_head"
    convs, layers = _BOX_HEADS[node.type]
    node.ignore("in_channels", "roi_feat_size", "num_classes", "with_cls", "with_reg", "init_cfg")
    node.expect("with_avg_pool", node.type == "BBoxHead")
    node.expect("reg_decoded_bbox", False, _decoded(node))
    target.copy(f"{place}.num_convs", node.first("num_shared_convs", "num_convs"), convs)
    target.copy(f"{place}.num_fcs", node.first("num_shared_fcs", "num_fcs"), layers)
    if layers:
        target.copy(f"{place}.fc_channels", node.at("fc_out_channels"), 1024)
    target.copy_given(f"{place}.conv_channels", node.at("conv_out_channels"))
    target.copy(f"{place}.class_agnostic", node.at("reg_class_agnostic"), False)
    layer_norm(target, node.at("norm_cfg"), f"{place}.norm")
    conv(target, node.at("conv_cfg"), f"{place}.conv")
    for key in ("num_cls_convs", "num_cls_fcs", "num_reg_convs", "num_reg_fcs"):
        node.expect(key, 0)
    coder(target, node, f"{path}.coder")
    loss(target, node.at("loss_cls"), f"{path}.cls_loss")
    loss(target, node.at("loss_bbox"), f"{path}.box_loss")


def _decoded(node: Node) -> bool:
    """Whether the box loss compares boxes; losses of that kind do it by themselves here."""
    return node.at("loss_bbox").type in ("GIoULoss", "BoundedIoULoss")


def _box_training(target: Target, node: Node, path: str) -> None:
    assigner(target, node.at("assigner"), f"{path}.assigner")
    sampler(target, node.at("sampler"), f"{path}.sampler", adds=f"{path}.add_ground_truth")
    size, pool = node.at("mask_size"), target.get(f"{ROI}.mask_roi_pool.size")
    if size.given and pool and size.take() not in (2 * pool, pool):
        size.refuse(f"{size.value}; masks are predicted at twice the size of their regions, here {2 * pool}")
    node.ignore("mask_size", "debug")
    node.expect("pos_weight", -1)


def _mask_head(target: Target, node: Node) -> None:
    path = f"{ROI}.mask_head"
    if node.type not in ("FCNMaskHead", "HTCMaskHead") or target.get(path) is None:
        node.refuse(f"mask head {shown(node.value)} {NOT_HERE}")
        return
    node.ignore("in_channels", "num_classes", "roi_feat_size", "init_cfg", "with_conv_res")
    target.copy(f"{path}.num_convs", node.at("num_convs"), 4)
    target.copy(f"{path}.channels", node.at("conv_out_channels"), 256)
    target.copy(f"{path}.class_agnostic", node.at("class_agnostic"), False)
    layer_norm(target, node.at("norm_cfg"), f"{path}.norm")
    conv(target, node.at("conv_cfg"), f"{path}.conv")
    loss(target, node.at("loss_mask"), f"{ROI}.mask_loss")
    node.expect("conv_kernel_size", 3)
    node.expect("upsample_cfg", {"type": "deconv", "scale_factor": 2})
