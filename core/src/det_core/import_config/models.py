"""Models of mmdetection as changes to the nearest recipe: their parts, preprocessing, and what is kept at test."""

from __future__ import annotations

from collections.abc import Mapping

from det_core.import_config.backbones import backbone, neck
from det_core.import_config.heads import dense_head, roi_head
from det_core.import_config.ledger import NO_COUNTERPART, Node, shown
from det_core.import_config.places import DENSE, ROI, phase
from det_core.import_config.target import Target
from det_core.weights.mmdet_facts import FileFacts
from det_core.weights.mmdet_presets import file_settings

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
    neck(target, model.at("neck"))
    _limits(target, root, facts)
    head = model.first("rpn_head", "bbox_head") if target.get(ROI) is None else model.at("rpn_head")
    if head.given:
        dense_head(target, head, phase(root, "train_cfg"), facts)
    if target.get(ROI) is not None:
        roi_head(target, root, model)
    for name in ("train_cfg", "test_cfg"):
        _leftovers_of_phase(phase(root, name), second_stage=target.get(ROI) is not None)


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


# What is kept in training and at test


def _limits(target: Target, root: Node, facts: FileFacts) -> None:
    """Proposals, thresholds and numbers of detections, as an import of weights sets them."""
    places = _LIMITS if target.get(ROI) is not None or target.get(f"{DENSE}.type") == "rpn" else _SINGLE
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
