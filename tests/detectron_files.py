"""Writers of checkpoints as Detectron and maskrcnn-benchmark save them, from detectors of this project.

The names are those of the two projects' sources; what reads them is not used here.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from det_core.model.detector import Detector
from det_core.weights.translate_names import detector_names, locate

KINDS = {"weight": "w", "bias": "b", "norm.weight": "s", "norm.bias": "b"}
LAST_BLOCKS = {2: 2, 3: 3, 4: 5, 5: 2}  # of ResNet-50


def detectron2_state(detector: Detector) -> dict[str, Tensor]:
    """The weights by detectron2's names, in the layout of this project."""
    assert detector.config is not None
    parts = detector_names("detectron2", detector.config, [])
    return {
        locate("detectron2", parts, key).name: value
        for key, value in detector.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def with_background_first(name: str, value: Tensor, agnostic_rows: int = 4) -> Tensor:
    """A parameter as it is where class 0 is background: scores first, zeros for its box and mask."""
    if ".cls_score." in name and not name.startswith("head."):
        return value.roll(1, 0)
    if ".bbox_pred." in name and not name.startswith("head."):
        rows = 4 if len(value) > 4 else agnostic_rows - len(value)
        return torch.cat([value.new_zeros((rows, *value.shape[1:])), value])
    if ".mask_head.predictor." in name and len(value) > 1:
        return torch.cat([value.new_zeros((1, *value.shape[1:])), value])
    return value


def detectron_blobs(detector: Detector) -> dict[str, Tensor]:
    """Caffe2's blobs: affine channels instead of norms, so statistics are not written."""
    group_norm = "gn" if any("GroupNorm" in type(m).__name__ for m in detector.modules()) else "bn"
    found = {}
    for name, value in detectron2_state(detector).items():
        if not name.endswith(("running_mean", "running_var")):
            value = with_background_first(name, value, agnostic_rows=8)
            if name.startswith(("head.cls_score.", "head.bbox_pred.")):  # by size, then ratios 1, 2, 0.5
                value = value.unflatten(0, (3, 3, -1))[[1, 2, 0]].transpose(0, 1).flatten(0, 2)
            found[blob_name(name, group_norm)] = value
    return found


def blob_name(name: str, norm: str) -> str:
    """detectron2's name to Caffe2's."""
    layer, _, kind = name.rpartition(".")
    end = KINDS[kind] if not layer.endswith(".norm") else f"{norm}_{KINDS[f'norm.{kind}']}"
    layer = layer.removesuffix(".norm").removeprefix("backbone.bottom_up.").removeprefix("backbone.")
    layer = re.sub(r"^roi_heads\.(res5|box_head|box_predictor|mask_head)", r"\1", layer)
    if layer == "stem.conv1":
        return f"res_conv1_{end}" if norm == "bn" and end != "w" else f"conv1_{end}"
    if found := re.fullmatch(r"res(\d)\.(\d+)\.conv(\d)", layer):
        return f"res{found[1]}_{found[2]}_branch2{' abc'[int(found[3])]}_{end}"
    if found := re.fullmatch(r"res(\d)\.0\.shortcut", layer):
        return f"res{found[1]}_0_branch1_{end}"
    if found := re.fullmatch(r"fpn_lateral(\d)", layer):
        level = int(found[1])
        return f"fpn_inner_res{level}_{LAST_BLOCKS[level]}_sum{'' if level == 5 else '_lateral'}_{end}"
    if found := re.fullmatch(r"fpn_output(\d)", layer):
        return f"fpn_res{found[1]}_{LAST_BLOCKS[int(found[1])]}_sum_{end}"
    if found := re.fullmatch(r"head\.(cls|bbox)_subnet\.(\d)", layer):
        return f"retnet_{found[1]}_conv_n{int(found[2]) // 2}_fpn3_{end}"
    if found := re.fullmatch(r"mask_head\.mask_fcn(\d)", layer):
        return f"{'_mask' if norm == 'gn' else '_[mask]'}_fcn{found[1]}_{end}"
    return f"{OTHERS.get(layer) or re.sub(r'^box_head.conv', 'head_conv', layer)}_{end}"


OTHERS = {
    "top_block.p6": "fpn_6",
    "top_block.p7": "fpn_7",
    "proposal_generator.rpn_head.conv": "conv_rpn_fpn2",
    "proposal_generator.rpn_head.objectness_logits": "rpn_cls_logits_fpn2",
    "proposal_generator.rpn_head.anchor_deltas": "rpn_bbox_pred_fpn2",
    "box_head.fc1": "fc6",
    "box_head.fc2": "fc7",
    "box_predictor.cls_score": "cls_score",
    "box_predictor.bbox_pred": "bbox_pred",
    "mask_head.deconv": "conv5_mask",
    "mask_head.predictor": "mask_fcn_logits",
    "head.cls_score": "retnet_cls_pred_fpn3",
    "head.bbox_pred": "retnet_bbox_pred_fpn3",
}


def benchmark_state(detector: Detector) -> dict[str, Tensor]:
    """maskrcnn-benchmark's names, with the prefix of distributed training."""
    state = detectron2_state(detector)
    normed = {name.removesuffix(".norm.weight") for name in state if name.endswith(".norm.weight")}
    found = {}
    for name, value in state.items():
        value = with_background_first(name, value)
        theirs = benchmark_name(name, name.rpartition(".")[0] in normed)
        found[f"module.{theirs}"] = value
        if ".head.layer4." in theirs and detector.roi_head is not None and detector.roi_head.needs_masks:
            found[f"module.{theirs.replace('.box.', '.mask.')}"] = value
    return found


def benchmark_name(name: str, normed: bool) -> str:
    """detectron2's name to maskrcnn-benchmark's. normed: whether it is a convolution with a norm."""
    pair = re.search(r"(fpn_(lateral|output)\d|mask_fcn\d)\.", name) is not None
    rules = (
        (r"^backbone\.(bottom_up\.)?stem\.conv1\.norm", "backbone.body.stem.bn1"),
        (r"^backbone\.(bottom_up\.)?stem", "backbone.body.stem"),
        (r"^backbone\.(bottom_up\.)?res(\d)", lambda m: f"backbone.body.layer{int(m[2]) - 1}"),
        (r"^roi_heads\.res5", "roi_heads.box.feature_extractor.head.layer4"),
        (r"(layer\d\.\d+)\.conv(\d)\.norm", r"\1.bn\2"),
        (r"shortcut\.norm", "downsample.1"),
        (r"shortcut", "downsample.0"),
        (r"fpn_lateral(\d)", lambda m: f"fpn.fpn_inner{int(m[1]) - 1}"),
        (r"fpn_output(\d)", lambda m: f"fpn.fpn_layer{int(m[1]) - 1}"),
        (r"top_block", "fpn.top_blocks"),
        (r"^proposal_generator\.rpn_head\.objectness_logits", "rpn.head.cls_logits"),
        (r"^proposal_generator\.rpn_head\.anchor_deltas", "rpn.head.bbox_pred"),
        (r"^proposal_generator\.rpn_head", "rpn.head"),
        (r"^head\.(cls|bbox)_subnet", r"rpn.head.\1_tower"),
        (r"^head\.cls_score", "rpn.head.cls_logits"),
        (r"^head\.bbox_pred", "rpn.head.bbox_pred"),
        (r"^roi_heads\.box_head\.fc1", "roi_heads.box.feature_extractor.fc6"),
        (r"^roi_heads\.box_head\.fc2", "roi_heads.box.feature_extractor.fc7"),
        (
            r"^roi_heads\.box_head\.conv(\d)\.(norm)?",
            lambda m: f"roi_heads.box.feature_extractor.xconvs.{3 * int(m[1]) - 3 + bool(m[2])}" + "." * (not m[2]),
        ),
        (r"^roi_heads\.box_predictor", "roi_heads.box.predictor"),
        (r"^roi_heads\.mask_head\.mask_fcn", "roi_heads.mask.feature_extractor.mask_fcn"),
        (r"^roi_heads\.mask_head\.deconv", "roi_heads.mask.predictor.conv5_mask"),
        (r"^roi_heads\.mask_head\.predictor", "roi_heads.mask.predictor.mask_fcn_logits"),
    )
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    if pair and normed:
        name = re.sub(r"\.(\w+)$", r".0.\1", name)
    return name.replace(".norm.", ".1.") if pair else name
