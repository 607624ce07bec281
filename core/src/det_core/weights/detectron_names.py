"""The names of Detectron (Caffe2) and of maskrcnn-benchmark, and the same names in detectron2. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]

# What a blob's name ends with, and what a parameter of detectron2 is then called.
KINDS = {
    "w": "weight",
    "b": "bias",
    "bn_s": "norm.weight",
    "bn_b": "norm.bias",
    "bn_rm": "norm.running_mean",
    "bn_riv": "norm.running_var",
    "gn_s": "norm.weight",
    "gn_b": "norm.bias",
}
_KIND = "(?P<kind>" + "|".join(sorted(KINDS, key=len, reverse=True)) + ")"
# Blobs that only a detector has.
DETECTOR_BLOBS = ("conv_rpn", "rpn_cls_logits", "retnet_", "cls_score_w")
# Blobs without a weight of a detector: optimiser states, and the classifier of ImageNet models.
_UNUSED_BLOB = re.compile(r".*_momentum|lr|weight_order|pred_[wb]|fc1000_[wb]")


def is_unused_blob(name: str) -> bool:
    """Whether a Caffe2 blob is no weight of a detector."""
    return _UNUSED_BLOB.fullmatch(name) is not None


def _blob_rules(bottom: str, last: str) -> Rules:
    """bottom: prefix of the network's layers; last: that of its last stage."""

    def stage(found: re.Match[str], layer: str) -> str:
        return f"{last if found['stage'] == '5' else bottom}res{found['stage']}.{found['block']}.{layer}."

    block = r"res(?P<stage>\d)_(?P<block>\d+)_branch"
    return (
        (rf"(?:res_)?conv1_(?={_KIND}$)", f"{bottom}stem.conv1."),
        (rf"{block}2(?P<conv>[abc])_", lambda m: stage(m, f"conv{'abc'.index(m['conv']) + 1}")),
        (rf"{block}1_", lambda m: stage(m, "shortcut")),
        (r"fpn_inner_res(\d)_\d+_sum_(?:lateral_)?", r"backbone.fpn_lateral\1."),
        (r"fpn_res(\d)_\d+_sum_", r"backbone.fpn_output\1."),
        (r"fpn_([67])_", r"backbone.top_block.p\1."),
        (r"conv_rpn_(?:fpn2_)?", "proposal_generator.rpn_head.conv."),
        (r"rpn_cls_logits_(?:fpn2_)?", "proposal_generator.rpn_head.objectness_logits."),
        (r"rpn_bbox_pred_(?:fpn2_)?", "proposal_generator.rpn_head.anchor_deltas."),
        (r"fc6_", "roi_heads.box_head.fc1."),
        (r"fc7_", "roi_heads.box_head.fc2."),
        (r"head_conv(\d)_", r"roi_heads.box_head.conv\1."),
        (r"cls_score_", "roi_heads.box_predictor.cls_score."),
        (r"bbox_pred_", "roi_heads.box_predictor.bbox_pred."),
        (r"_(?:\[mask\]|mask)_fcn(\d)_", r"roi_heads.mask_head.mask_fcn\1."),
        (r"conv5_mask_", "roi_heads.mask_head.deconv."),
        (r"mask_fcn_logits_", "roi_heads.mask_head.predictor."),
        (r"retnet_(cls|bbox)_conv_n(\d)_fpn3_", lambda m: f"head.{m[1]}_subnet.{2 * int(m[2])}."),
        (r"retnet_cls_pred_fpn3_", "head.cls_score."),
        (r"retnet_bbox_pred_fpn3_", "head.bbox_pred."),
    )


def from_blobs(names: Iterable[str]) -> dict[str, str]:
    """Maps the names of Caffe2's blobs to detectron2's; of an ImageNet model, without a prefix."""
    names = list(names)
    pyramid = any(name.startswith("fpn_") for name in names)
    detector = any(name.startswith(DETECTOR_BLOBS) for name in names)
    bottom = ("backbone.bottom_up." if pyramid else "backbone.") if detector else ""
    rules = _blob_rules(bottom, "roi_heads." if detector and not pyramid else bottom)
    return {name: _from_blob(name, rules) for name in names}


def _from_blob(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        found = re.match(pattern, name)
        kind = name[found.end() :] if found else None
        if found and kind in KINDS:
            return (replacement(found) if callable(replacement) else found.expand(replacement)) + KINDS[kind]
    return name


def _benchmark_rules(bottom: str, one_stage: bool) -> Rules:
    """one_stage: whether the head on all levels is RetinaNet's, not an RPN."""
    rpn = "head." if one_stage else "proposal_generator.rpn_head."
    scores, deltas = ("cls_score", "bbox_pred") if one_stage else ("objectness_logits", "anchor_deltas")
    return (
        (r"backbone\.body\.stem\.conv1\.", f"{bottom}stem.conv1."),
        (r"backbone\.body\.stem\.bn1\.", f"{bottom}stem.conv1.norm."),
        (r"backbone\.body\.layer(\d)\.", lambda m: f"{bottom}res{int(m[1]) + 1}."),
        (r"roi_heads\.box\.feature_extractor\.head\.layer4\.", "roi_heads.res5."),
        (r"backbone\.fpn\.fpn_inner(\d)\.", lambda m: f"backbone.fpn_lateral{int(m[1]) + 1}."),
        (r"backbone\.fpn\.fpn_layer(\d)\.", lambda m: f"backbone.fpn_output{int(m[1]) + 1}."),
        (r"backbone\.fpn\.top_blocks\.", "backbone.top_block."),
        (r"rpn\.head\.(cls|bbox)_tower\.", r"head.\1_subnet."),
        (r"rpn\.head\.conv\.", f"{rpn}conv."),
        (r"rpn\.head\.cls_logits\.", f"{rpn}{scores}."),
        (r"rpn\.head\.bbox_pred\.", f"{rpn}{deltas}."),
        (r"roi_heads\.box\.feature_extractor\.fc6\.", "roi_heads.box_head.fc1."),
        (r"roi_heads\.box\.feature_extractor\.fc7\.", "roi_heads.box_head.fc2."),
        (r"roi_heads\.box\.feature_extractor\.xconvs\.(\d+)\.", _xconv),
        (r"roi_heads\.box\.predictor\.", "roi_heads.box_predictor."),
        (r"roi_heads\.mask\.feature_extractor\.mask_fcn(\d)\.", r"roi_heads.mask_head.mask_fcn\1."),
        (r"roi_heads\.mask\.predictor\.conv5_mask\.", "roi_heads.mask_head.deconv."),
        (r"roi_heads\.mask\.predictor\.mask_fcn_logits\.", "roi_heads.mask_head.predictor."),
    )


def _xconv(found: re.Match[str]) -> str:
    """A sequence of a convolution, a norm and a ReLU, again and again."""
    number, kind = divmod(int(found[1]), 3)
    return f"roi_heads.box_head.conv{number + 1}." + ("norm." if kind == 1 else "")


# Inside of a layer: a deformable convolution, norms, and pairs of a convolution and a group norm.
_BENCHMARK_LAYERS: Rules = (
    (r"\.conv2\.offset\.", ".conv2.conv_offset."),
    (r"\.conv2\.conv\.", ".conv2."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"(fpn_lateral\d|fpn_output\d|mask_fcn\d|fc\d)\.0\.", r"\1."),
    (r"(fpn_lateral\d|fpn_output\d|mask_fcn\d|fc\d)\.1\.", r"\1.norm."),
)


def from_benchmark(names: Iterable[str]) -> dict[str, str]:
    """Maps the names of maskrcnn-benchmark to detectron2's."""
    names = list(names)
    bottom = "backbone.bottom_up." if any(name.startswith("backbone.fpn.") for name in names) else "backbone."
    rules = _benchmark_rules(bottom, any(name.startswith("rpn.head.cls_tower.") for name in names))
    return {name: _from_benchmark(name, rules) for name in names}


def _from_benchmark(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        renamed, count = re.subn(rf"^{pattern}", replacement, name)
        if count:
            for inner, layer in _BENCHMARK_LAYERS:
                renamed = re.sub(inner, layer, renamed)
            return renamed
    return name
