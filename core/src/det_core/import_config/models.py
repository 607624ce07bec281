"""Models: backbone, neck and heads of mmdetection as changes to the nearest recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from det_core.import_config.ledger import NO_COUNTERPART, Node, shown
from det_core.import_config.parts import NOT_HERE, assigner, batch_norm, coder, conv, layer_norm, loss, sampler
from det_core.import_config.target import Target
from det_core.weights.mmdet_facts import FileFacts
from det_core.weights.mmdet_presets import file_settings
from det_core.weights.mmdet_values import numbers, parts, whole

DENSE, ROI = "detector.dense_head", "detector.roi_head"
# ImageNet weights of mmdetection that the recipes' own equal: words of their addresses, and of ours.
_SAME_WEIGHTS = (
    ("torchvision://", "torchvision:"),
    ("vgg16_caffe", "torchvision:vgg16"),
    ("resnet50_caffe", "detectron2:R-50"),
    ("resnet101_caffe", "detectron2:R-101"),
    ("resnet50_msra", "detectron2:R-50"),
    ("resnet101_msra", "detectron2:R-101"),
)
# Where the configuration has what the facts of a file say, by det's setting.
_LIMITS: Mapping[str, tuple[str, ...]] = {
    f"{DENSE}.test_limits.before_nms": ("test_cfg.rpn.nms_pre",),
    f"{DENSE}.test_limits.after_nms": ("test_cfg.rpn.max_per_img", "test_cfg.rpn.max_num"),
    f"{DENSE}.train_limits.before_nms": ("train_cfg.rpn_proposal.nms_pre",),
    f"{DENSE}.train_limits.after_nms": ("train_cfg.rpn_proposal.max_per_img", "train_cfg.rpn_proposal.max_num"),
    f"{DENSE}.nms_threshold": ("test_cfg.rpn.nms", "test_cfg.rpn.nms_thr"),
    f"{ROI}.score_threshold": ("test_cfg.rcnn.score_thr",),
    f"{ROI}.nms_threshold": ("test_cfg.rcnn.nms", "test_cfg.rcnn.nms_thr"),
    f"{ROI}.soft_nms": ("test_cfg.rcnn.nms",),
    f"{ROI}.max_detections": ("test_cfg.rcnn.max_per_img",),
    f"{ROI}.mask_threshold": ("test_cfg.rcnn.mask_thr_binary",),
}
_SINGLE: Mapping[str, tuple[str, ...]] = {
    f"{DENSE}.before_nms": ("test_cfg.nms_pre",),
    f"{DENSE}.score_threshold": ("test_cfg.score_thr",),
    f"{DENSE}.nms_threshold": ("test_cfg.nms",),
    f"{DENSE}.soft_nms": ("test_cfg.nms",),
    f"{DENSE}.max_detections": ("test_cfg.max_per_img",),
}


def translate_model(target: Target, root: Node, facts: FileFacts) -> None:
    """The model, with what is trained and kept at test."""
    model = root.at("model")
    model.ignore("type")
    preprocess(target, root, facts)
    backbone(target, model.at("backbone"), model.at("pretrained"))
    neck(target, model.at("neck"), facts)
    _limits(target, root, facts)
    head = model.first("rpn_head", "bbox_head") if target.get(ROI) is None else model.at("rpn_head")
    if head.given:
        dense_head(target, head, phase(root, "train_cfg"), facts)
    if target.get(ROI) is not None:
        roi_head(target, root, model)
    for name in ("train_cfg", "test_cfg"):
        _leftovers_of_phase(phase(root, name), second_stage=target.get(ROI) is not None)


def phase(root: Node, name: str) -> Node:
    """`train_cfg` or `test_cfg` of the model. In 3.x the top-level ones are loops."""
    inner, outer = root.at(f"model.{name}"), root.at(name)
    if inner.given or not outer.given or outer.value is None or at_loop(outer):
        return inner
    return outer


def at_loop(node: Node) -> bool:
    """Whether a `train_cfg` is the loop of 3.x."""
    return isinstance(node.value, Mapping) and any(key in node.value for key in ("type", "max_epochs", "by_epoch"))


def preprocess(target: Target, root: Node, facts: FileFacts) -> None:
    """How images are normalised and padded; the values are those of the test images."""
    node = root.at("model.data_preprocessor")
    places = {"order": "bgr_to_rgb", "mean": "mean", "std": "std", "pad_divisor": "pad_size_divisor"}
    for setting, value in file_settings(facts, target.plain):
        group, _, key = setting.rpartition(".")
        if group == "detector.preprocess" and value is not None:
            source = node.at(places[key])
            target.put(setting, list(value) if isinstance(value, tuple) else value, source)
        elif group.startswith("data.test_transforms") and value is not None:
            source = root.first("test_dataloader.dataset.pipeline", "data.test.pipeline", "data.val.pipeline")
            target.put(setting, [list(scale) for scale in value] if key == "scales" else value, source)
    node.ignore("type", "bgr_to_rgb", "rgb_to_bgr", "pad_mask", "mask_pad_value", "boxtype2tensor")
    node.expect("pad_seg", False, True)
    node.expect("seg_pad_value", 255)
    for item in node.at("batch_augments").items():
        item.refuse(f"{shown(item.value)} of whole batches {NO_COUNTERPART}; use transforms of each image")


# Backbones


def backbone(target: Target, node: Node, pretrained: Node) -> None:
    """The backbone."""
    path, kind = "detector.backbone", node.type
    if kind == "SSDVGG" and target.get(f"{path}.type") == "vgg16_ssd":
        node.ignore("depth", "input_size")
        node.expect("with_last_pool", False)
        node.expect("ceil_mode", True)
        node.expect("out_indices", (3, 4))
        node.expect("out_feature_indices", (22, 34))
        scale = node.at("l2_norm_scale")
        if scale.given:
            target.put("detector.neck.scale", scale.number(20.0), scale)
    elif kind in ("ResNet", "ResNeXt") and target.get(f"{path}.type") == "resnet":
        _resnet(target, node, path, kind)
    else:
        node.refuse(f"backbone {shown(node.value)} {NOT_HERE} ({target.get(f'{path}.type')})")
        pretrained.take()
        return
    _weights(target, pretrained if pretrained.given else node.at("init_cfg"), f"{path}.pretrained")


def _resnet(target: Target, node: Node, path: str, kind: str) -> None:
    node.ignore("num_stages")
    for key, default in (("depth", None), ("style", "pytorch")):
        value = node.at(key)
        if value.take(default) is not None:
            target.put(f"{path}.{key}", value.take(default), value)
    if kind == "ResNeXt":
        target.put(f"{path}.groups", node.at("groups").take(1), node.at("groups"))
        target.put(f"{path}.base_width", node.at("base_width").take(4), node.at("base_width"))
    stages = node.at("out_indices")
    target.put(
        f"{path}.stages",
        [i + 1 if (i := whole(stage)) is not None else stage for stage in parts(stages.take((0, 1, 2, 3)))],
        stages,
    )
    target.put(f"{path}.frozen_stages", node.at("frozen_stages").take(-1), node.at("frozen_stages"))
    target.put(f"{path}.zero_init_residual", node.at("zero_init_residual").take(True), node.at("zero_init_residual"))
    evaluated = bool(node.at("norm_eval").take(True))
    norm = node.first("norm_cfg", "normalize")
    made = batch_norm(norm, evaluated=evaluated)
    if made is not None:
        target.put(f"{path}.norm", made, norm)
    conv(target, node.at("conv_cfg"), f"{path}.conv")
    _deformable(target, node, path)
    trunk = f"{ROI}.trunk"
    if target.get(f"{trunk}.type") == "resnet_stage":
        for key in ("depth", "style", "groups", "base_width", "norm"):
            target.put(f"{trunk}.{key}", target.get(f"{path}.{key}"), node.at(key))
    node.expect("with_cp", False, why="activation checkpointing is not available; training takes more memory")
    node.expect("strides", (1, 2, 2, 2), (1, 2, 2))
    node.expect("dilations", (1, 1, 1, 1), (1, 1, 1))
    node.expect("in_channels", 3)
    for key in ("avg_down", "deep_stem"):
        node.expect(key, False)


def _deformable(target: Target, node: Node, path: str) -> None:
    layer, where = node.at("dcn"), node.at("stage_with_dcn")
    stages = [number for number, on in enumerate(parts(where.take()), 1) if on is True]
    if not layer.given or layer.value in (None, False) or not stages:
        layer.take()
        if target.get(f"{path}.spatial_conv") is not None:
            target.put(f"{path}.spatial_conv", None, layer)
        return
    groups = layer.first("deform_groups", "deformable_groups").take(1)
    modulated = layer.type == "DCNv2" or layer.at("modulated").take(False) is True
    layer.expect("fallback_on_stride", False)
    made = {"type": "deform_conv2d", "modulated": modulated, "offset_groups": groups}
    target.put(f"{path}.spatial_conv", made, layer)
    target.put(f"{path}.spatial_stages", stages, where)


def _weights(target: Target, node: Node, path: str) -> None:
    """The initial weights of the backbone."""
    file = node.at("checkpoint") if isinstance(node.value, Mapping) else node
    if isinstance(node.value, Mapping) and node.type != "Pretrained":
        node.refuse("layers are initialised as the recipe's parts do it")
        return
    spec = file.take()
    if spec is None:
        target.put(path, None, file)
        return
    node.take()
    ours = target.get(path) or ""
    text = str(spec)
    same = any(word in text and ours.startswith(begin) for word, begin in _SAME_WEIGHTS)
    if not node.given or same:
        if text.startswith("torchvision://"):
            target.put(path, text.replace("://", ":", 1), file)
        return
    if ours.startswith("mmdet:") and ours.removeprefix("mmdet:").rpartition("/")[2] in text:
        return
    kept = f"the recipe's weights ({ours}) are kept" if ours else "the recipe has none"
    file.refuse(
        f"weights {text!r} are not downloaded; {kept}; to use others, convert their file with `det-core import-weights`"
    )


# Necks


def neck(target: Target, node: Node, facts: FileFacts) -> None:
    """The neck."""
    path = "detector.neck"
    ours = target.get(f"{path}.type")
    several = node.items()
    if len(several) > 1:
        for other in several[1:]:
            other.refuse(f"neck {shown(other.value)} {NOT_HERE}")
    one = several[0] if isinstance(node.value, (list, tuple)) and several else node
    if not one.given or one.value is None:
        one.take()
        return
    if one.type == "FPN" and ours == "fpn":
        _fpn(target, one, path)
    elif one.type == "SSDNeck" and ours == "ssd_neck":
        _ssd_neck(target, one, path)
    else:
        one.refuse(f"neck {shown(one.value)} {NOT_HERE} ({ours})")


def _fpn(target: Target, node: Node, path: str) -> None:
    node.ignore("in_channels", "init_cfg")
    for theirs, ours, default in (
        ("out_channels", "channels", 256),
        ("num_outs", "levels", 5),
        ("start_level", "start", 0),
        ("relu_before_extra_convs", "extra_relu", False),
    ):
        target.put(f"{path}.{ours}", node.at(theirs).take(default), node.at(theirs))
    extra, on_inputs = node.at("add_extra_convs"), node.at("extra_convs_on_inputs").take(True)
    how = extra.take(False)
    kind: dict[Any, str] = {False: "max_pool", True: "conv_input" if on_inputs else "conv_output"}
    kind |= {"on_input": "conv_input", "on_output": "conv_output"}
    if how in kind:
        target.put(f"{path}.extra", kind[how], extra)
    else:
        extra.refuse(f"{shown(how)} {NO_COUNTERPART}, only on_input and on_output")
    layer_norm(target, node.at("norm_cfg"), f"{path}.norm")
    conv(target, node.at("conv_cfg"), f"{path}.conv")
    node.expect("end_level", -1)
    node.expect("no_norm_on_lateral", False)
    node.expect("act_cfg", None)
    node.expect("upsample_cfg", {"mode": "nearest"})


def _ssd_neck(target: Target, node: Node, path: str) -> None:
    channels, strides, pads = (parts(node.at(k).take()) for k in ("out_channels", "level_strides", "level_paddings"))
    node.ignore("in_channels")
    scale = node.at("l2_norm_scale")
    target.put(f"{path}.scale", None if scale.take(20.0) is None else scale.number(20.0), scale)
    last = whole(node.at("last_kernel_size").take(3)) or 3
    levels = target.get(f"{path}.extra")
    extra = list(zip(channels[2:], strides, pads, strict=False))
    if len(extra) == len(strides) == len(levels):
        made = [
            {**level, "channels": c, "stride": s, "padding": p, "kernel": last if n == len(levels) - 1 else 3}
            for n, (level, (c, s, p)) in enumerate(zip(levels, extra, strict=True))
        ]
        target.put(f"{path}.extra", made, node.at("out_channels"))
    elif channels:
        node.at("out_channels").refuse(f"{len(extra)} levels; the recipe's neck has {len(levels)}, which are kept")


# Heads


def dense_head(target: Target, node: Node, train: Node, facts: FileFacts) -> None:
    """The head that works on every location: RPN, RetinaNet, SSD."""
    kinds = {"rpn": "RPNHead", "retinanet": "RetinaHead", "ssd": "SSDHead"}
    kind = target.get(f"{DENSE}.type")
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
        target.put(f"{DENSE}.channels", node.at("feat_channels").take(256), node.at("feat_channels"))
        default = 1 if kind == "rpn" else 4
        stack = node.first("stacked_convs", "num_convs")
        target.put(f"{DENSE}.num_convs", stack.take(default), stack)
        conv(target, node.at("conv_cfg"), f"{DENSE}.conv")
        if kind == "retinanet":
            layer_norm(target, node.at("norm_cfg"), f"{DENSE}.norm")
    own = train.at("rpn") if kind == "rpn" else train
    assigner(target, own.at("assigner"), f"{DENSE}.assigner")
    sampler(target, own.at("sampler"), f"{DENSE}.sampler")
    border = own.at("allowed_border")
    if border.given and target.has(f"{DENSE}.allowed_border"):
        target.put(f"{DENSE}.allowed_border", border.take(), border)
    else:
        own.expect("allowed_border", -1)
    if kind == "ssd":
        share = own.at("neg_pos_ratio")
        target.put(f"{DENSE}.negatives", share.number(3.0), share)
        beta = own.at("smoothl1_beta")
        target.put(f"{DENSE}.box_loss.beta", beta.number(1.0), beta)
    own.expect("pos_weight", -1)
    own.ignore("debug", "gamma", "alpha")


def anchors(target: Target, head: Node, facts: FileFacts) -> None:
    """Scales, ratios and strides of the anchors."""
    found, path = facts.anchors, f"{DENSE}.anchors"
    made = head.at("anchor_generator") if head.at("anchor_generator").given else head
    if found.scales is not None:
        source = made.first("scales", "anchor_scales", "octave_base_scale")
        target.put(f"{path}.scales", [float(v) for v in found.scales], source)
    if found.ratios is not None:
        target.put(f"{path}.ratios", [float(v) for v in found.ratios], made.first("ratios", "anchor_ratios"))
    if found.sizes is not None:
        source = made.first("basesize_ratio_range", "input_size")
        target.put(f"{path}.sizes", list(found.sizes), source)
    if found.level_ratios is not None:
        source = made.first("ratios", "anchor_ratios")
        target.put(f"{path}.ratios", [list(level) for level in found.level_ratios], source)
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
    if kind == "rcnn":
        _box_head(target, boxes.items()[0] if boxes.items() else boxes, ROI)
        _box_training(target, train.items()[0] if train.items() else train, ROI)
    elif kind == "cascade":
        stages = target.get(f"{ROI}.stages") or []
        found = boxes.items() if isinstance(boxes.value, (list, tuple)) else []
        if len(found) != len(stages):
            boxes.refuse(f"{len(found) or 'one'} for all stages; the recipe has {len(stages)} stages, which are kept")
        for number, head in enumerate(found[: len(stages)]):
            _box_head(target, head, f"{ROI}.stages[{number}]", shared=ROI)
        for number, stage in enumerate(train.items()[: len(stages)]):
            _box_training(target, stage, f"{ROI}.stages[{number}]")
        weights = (node if node is not model else phase(root, "train_cfg")).at("stage_loss_weights")
        for number, weight in enumerate(numbers(weights.take()) or ()):
            if number < len(stages):
                target.put(f"{ROI}.stages[{number}].loss_weight", float(weight), weights)
    else:
        boxes.refuse(f"the settings of the recipe's {kind} are not compared; the recipe's are kept")
        train.refuse(f"the settings of the recipe's {kind} are not compared; the recipe's are kept")
    masks = node.at("mask_head")
    if masks.given and masks.value is not None:
        _mask_head(target, masks.items()[0] if isinstance(masks.value, (list, tuple)) else masks)


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
    kinds = {"roi_align": ("RoIAlign",), "deform_roi_pool": tuple(_POOLS)}
    kind = target.get(f"{path}.type")
    if kind == "deform_roi_pool" and layer.type in kinds["deform_roi_pool"]:
        layer.take()
    elif kind == "roi_align" and layer.type == "RoIAlign":
        size = layer.first("output_size", "out_size")
        target.put(f"{path}.size", size.take(7), size)
        sampling = layer.first("sampling_ratio", "sample_num")
        target.put(f"{path}.sampling", sampling.take(0), sampling)
        layer.expect("aligned", True, False) if target.get(f"{path}.alignment") == "v1" else layer.expect(
            "aligned", True
        )
        layer.expect("pool_mode", "avg")
        layer.ignore("use_torchvision")
    else:
        layer.refuse(f"pooling {shown(layer.value)} {NOT_HERE} ({kind})")
    strides = one.at("featmap_strides")
    target.put(f"{path}.strides", list(parts(strides.take((4, 8, 16, 32)))), strides)
    scale = one.at("finest_scale")
    target.put(f"{path}.finest_scale", scale.number(56), scale)


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
    found = node.first("num_shared_convs", "num_convs")
    target.put(f"{place}.num_convs", found.take(convs), found)
    found = node.first("num_shared_fcs", "num_fcs")
    target.put(f"{place}.num_fcs", found.take(layers), found)
    if layers:
        found = node.at("fc_out_channels")
        target.put(f"{place}.fc_channels", found.take(1024), found)
    found = node.at("conv_out_channels")
    if found.given:
        target.put(f"{place}.conv_channels", found.take(), found)
    found = node.at("reg_class_agnostic")
    target.put(f"{place}.class_agnostic", found.take(False), found)
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
    if node.type != "FCNMaskHead" or target.get(path) is None:
        node.refuse(f"mask head {shown(node.value)} {NOT_HERE}")
        return
    node.ignore("in_channels", "num_classes", "roi_feat_size", "init_cfg")
    target.put(f"{path}.num_convs", node.at("num_convs").take(4), node.at("num_convs"))
    target.put(f"{path}.channels", node.at("conv_out_channels").take(256), node.at("conv_out_channels"))
    target.put(f"{path}.class_agnostic", node.at("class_agnostic").take(False), node.at("class_agnostic"))
    layer_norm(target, node.at("norm_cfg"), f"{path}.norm")
    conv(target, node.at("conv_cfg"), f"{path}.conv")
    loss(target, node.at("loss_mask"), f"{ROI}.mask_loss")
    node.expect("conv_kernel_size", 3)
    node.expect("upsample_cfg", {"type": "deconv", "scale_factor": 2})


# What is kept in training and at test


def _limits(target: Target, root: Node, facts: FileFacts) -> None:
    """Proposals, thresholds and numbers of detections, as an import of weights sets them."""
    places = dict(_LIMITS) if target.get(ROI) is not None or target.get(f"{DENSE}.type") == "rpn" else dict(_SINGLE)
    for setting, value in file_settings(facts, target.plain):
        if setting in places and value is not None and target.has(setting):
            source = _source(root, places[setting])
            target.put(setting, value, source)
            source.take()


def _source(root: Node, paths: tuple[str, ...]) -> Node:
    found = [phase(root, path.partition(".")[0]).at(path.partition(".")[2]) for path in paths]
    return next((node for node in found if node.given), found[0])


def _leftovers_of_phase(node: Node, *, second_stage: bool) -> None:
    """Settings that have one value here."""
    for part in ("rpn", "rpn_proposal", "rcnn", ""):
        for inner in (node.at(part) if part else node).items():
            inner.expect("min_bbox_size", 0, why="boxes of that size are not removed")
            inner.expect("nms_across_levels", False, why="NMS is applied to each level of an RPN")
            kind = inner.at("nms.type")
            if kind.given and kind.value not in ("nms", "soft_nms"):
                inner.at("nms").refuse(f"{kind.value!r} {NO_COUNTERPART}, only nms and soft_nms")
            if part.startswith("rpn"):
                inner.ignore("nms_post", "nms_thr", "nms", "max_num", "max_per_img", "nms_pre")
    if second_stage:
        node.at("rcnn").ignore("nms_pre")
