"""Backbones and necks of mmdetection as changes to those of the nearest recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from det_core.import_config.ledger import NO_COUNTERPART, Node, shown
from det_core.import_config.parts import NOT_HERE, batch_norm, conv, layer_norm
from det_core.import_config.places import ROI
from det_core.import_config.target import Target
from det_core.import_config.timm_backbones import timm_backbone
from det_core.weights.mmdet_values import parts, whole

# ImageNet weights of mmdetection that the recipes' own equal: words of their addresses, and of ours.
_SAME_WEIGHTS = (
    ("torchvision://", "torchvision:"),
    ("vgg16_caffe", "torchvision:vgg16"),
    ("resnet50_caffe", "detectron2:R-50"),
    ("resnet101_caffe", "detectron2:R-101"),
    ("resnet50_msra", "detectron2:R-50"),
    ("resnet101_msra", "detectron2:R-101"),
    ("swin_tiny_patch4_window7_224", "timm:swin_tiny_patch4_window7_224"),
    ("swin_small_patch4_window7_224", "timm:swin_small_patch4_window7_224"),
    ("convnext-tiny", "timm:convnext_tiny"),
    ("convnext-small", "timm:convnext_small"),
    ("convnext-base", "timm:convnext_base"),
)


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
    elif timm_backbone(target, node):
        pass
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
            target.copy(f"{path}.{key}", value, default)
    if kind == "ResNeXt":
        target.copy(f"{path}.groups", node.at("groups"), 1)
        target.copy(f"{path}.base_width", node.at("base_width"), 4)
    stages = node.at("out_indices")
    target.put(
        f"{path}.stages",
        [i + 1 if (i := whole(stage)) is not None else stage for stage in parts(stages.take((0, 1, 2, 3)))],
        stages,
    )
    target.copy(f"{path}.frozen_stages", node.at("frozen_stages"), -1)
    target.copy(f"{path}.zero_init_residual", node.at("zero_init_residual"), True)
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
    if isinstance(node.value, Mapping):
        node.ignore("prefix", "map_location")
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


def neck(target: Target, node: Node) -> None:
    """The neck."""
    path = "detector.neck"
    ours = target.get(f"{path}.type")
    several = node.items()
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
        target.copy(f"{path}.{ours}", node.at(theirs), default)
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
