"""Models of detectron2's configurations as changes to the nearest recipe: their parts, and what is kept at test."""

from __future__ import annotations

from det_core.errors import DetError
from det_core.import_config.ledger import NO_COUNTERPART, Node, shown
from det_core.import_config.places import DENSE, ROI
from det_core.import_config.target import Target
from det_core.import_config.yacs_defaults import taken
from det_core.import_config.yacs_heads import retinanet, roi_head, rpn
from det_core.import_config.yacs_parts import norm, put_all, put_key, put_norm
from det_core.weights.mmdet_values import numbers, parts, whole

_PYRAMIDS = ("build_resnet_fpn_backbone", "build_retinanet_resnet_fpn_backbone")
_SIZES = {"DEPTH": "depth", "NUM_GROUPS": "groups", "WIDTH_PER_GROUP": "base_width"}
# Initial weights of detectron2: a part of their address, and our name.
_WEIGHTS = {
    "MSRA/R-50": "detectron2:R-50",
    "MSRA/R-101": "detectron2:R-101",
    "torchvision/R-50": "torchvision:resnet50",
    "torchvision/R-101": "torchvision:resnet101",
}


def model_of(root: Node) -> tuple[str, str]:
    """The model as in the names of recipes, and the kind of its features: fpn, c4 or dc5.

    Raises:
        DetError: for a model of which there are no recipes.
    """
    node = root.at("MODEL.META_ARCHITECTURE")
    kind, heads = taken(root, "MODEL.META_ARCHITECTURE"), taken(root, "MODEL.ROI_HEADS.NAME")
    backbone = taken(root, "MODEL.BACKBONE.NAME")
    features = "fpn" if backbone in _PYRAMIDS else "c4"
    if backbone not in (*_PYRAMIDS, "build_resnet_backbone"):
        raise DetError(f"{root.at('MODEL.BACKBONE.NAME').place}: backbone {backbone!r}: only ResNets have recipes")
    if kind == "RetinaNet":
        return "retinanet", features
    if kind == "ProposalNetwork":
        return "rpn", features
    if kind != "GeneralizedRCNN":
        raise DetError(
            f"{node.place}: MODEL.META_ARCHITECTURE {kind!r}: there are no recipes of this model; allowed: "
            "GeneralizedRCNN, RetinaNet, ProposalNetwork"
        )
    if heads not in ("Res5ROIHeads", "StandardROIHeads", "CascadeROIHeads"):
        raise DetError(
            f"{root.at('MODEL.ROI_HEADS.NAME').place}: MODEL.ROI_HEADS.NAME {heads!r}: there are no recipes of this "
            "model; allowed: Res5ROIHeads, StandardROIHeads, CascadeROIHeads"
        )
    if features == "c4" and heads != "Res5ROIHeads":
        features = "dc5"
    precomputed = taken(root, "MODEL.PROPOSAL_GENERATOR.NAME") == "PrecomputedProposals"
    masks = "mask-" if taken(root, "MODEL.MASK_ON") is True else ""
    if heads == "CascadeROIHeads":
        return f"cascade-{masks}rcnn", features
    return (f"{masks}rcnn" if masks else "fast-rcnn" if precomputed else "faster-rcnn"), features


def translate_model(target: Target, root: Node, model: str) -> None:
    """The model of a configuration; model: its name, as `model_of` says."""
    _preprocess(target, root)
    _backbone(target, root)
    _neck(target, root)
    kind = target.get(f"{DENSE}.type")
    if kind == "rpn":
        rpn(target, root)
    elif kind == "retinanet":
        retinanet(target, root)
    if target.get(ROI) is not None:
        roi_head(target, root)
    root.at("MODEL").ignore("DEVICE", "LOAD_PROPOSALS")
    generator = taken(root, "MODEL.PROPOSAL_GENERATOR.NAME")
    if kind == "rpn" and generator != "RPN":
        root.at("MODEL.PROPOSAL_GENERATOR.NAME").refuse(f"{generator!r} {NO_COUNTERPART} in this model; it has an RPN")
    if taken(root, "MODEL.KEYPOINT_ON") is True:
        root.at("MODEL.KEYPOINT_ON").refuse(f"a keypoint head {NO_COUNTERPART}; the detector is built without it")
    _ignore_parts_not_built(root, model, cascade=target.get(f"{ROI}.type") == "cascade")


def _ignore_parts_not_built(root: Node, model: str, *, cascade: bool) -> None:
    """Keys of parts that detectron2 does not build for this model; a file that a run wrote has them all."""
    node = root.at("MODEL")
    node.ignore("ROI_KEYPOINT_HEAD", "SEM_SEG_HEAD", "PANOPTIC_FPN", "MASK_ON")
    if model != "retinanet":
        node.ignore("RETINANET")
    if model in ("retinanet", "rpn"):
        node.ignore("ROI_HEADS", "ROI_BOX_HEAD")
    if model in ("retinanet", "fast-rcnn"):
        node.ignore("RPN", "PROPOSAL_GENERATOR")
    if model == "fast-rcnn":
        node.ignore("ANCHOR_GENERATOR")
    if not cascade:
        node.ignore("ROI_BOX_CASCADE_HEAD")
    if model in ("retinanet", "rpn") or node.at("MASK_ON").value is not True:
        node.ignore("ROI_MASK_HEAD")


# Images, backbone, neck


def _preprocess(target: Target, root: Node) -> None:
    place = "detector.preprocess"
    for theirs, ours in (("PIXEL_MEAN", "mean"), ("PIXEL_STD", "std")):
        node = root.at(f"MODEL.{theirs}")
        target.put(f"{place}.{ours}", [float(v) for v in numbers(taken(root, f"MODEL.{theirs}")) or ()], node)
    node, order = root.at("INPUT.FORMAT"), taken(root, "INPUT.FORMAT")
    if order in ("RGB", "BGR"):
        target.put(f"{place}.order", order.lower(), node)
    else:
        node.refuse(f"{order!r} {NO_COUNTERPART}, only RGB and BGR")


def _backbone(target: Target, root: Node) -> None:
    path, theirs = "detector.backbone", "MODEL.RESNETS"
    stride_in_1x1, key = taken(root, f"{theirs}.STRIDE_IN_1X1"), root.at(f"{theirs}.STRIDE_IN_1X1")
    trunk = f"{ROI}.trunk"
    places = [path, *([trunk] if target.get(f"{trunk}.type") == "resnet_stage" else [])]
    for place in places:
        put_all(target, root, theirs, _SIZES, place)
        target.put(f"{place}.style", "caffe" if stride_in_1x1 else "pytorch", key)
        made = norm(root.at(f"{theirs}.NORM"), taken(root, f"{theirs}.NORM"))
        if made is not None:
            target.put(f"{place}.norm", made, root.at(f"{theirs}.NORM"))
    frozen = taken(root, "MODEL.BACKBONE.FREEZE_AT")
    target.put(f"{path}.frozen_stages", (whole(frozen) or 0) - 1, root.at("MODEL.BACKBONE.FREEZE_AT"))
    dilation = root.at(f"{theirs}.RES5_DILATION")
    target.put(f"{path}.dilated", taken(root, f"{theirs}.RES5_DILATION") == 2, dilation)
    _deformable(target, root, places)
    small = taken(root, f"{theirs}.DEPTH") in (18, 34)
    node = root.at(theirs)
    node.expect("RES2_OUT_CHANNELS", 64 if small else 256)
    node.expect("STEM_OUT_CHANNELS", 64)
    node.ignore("OUT_FEATURES")
    _initial_weights(target, root, places)


def _deformable(target: Target, root: Node, places: list[str]) -> None:
    theirs = "MODEL.RESNETS"
    on = root.at(f"{theirs}.DEFORM_ON_PER_STAGE")
    stages = [n for n, used in enumerate(parts(taken(root, on.name)), 1) if used is True]
    modulated = taken(root, f"{theirs}.DEFORM_MODULATED")
    groups = taken(root, f"{theirs}.DEFORM_NUM_GROUPS")
    made = {"type": "deform_conv2d", "modulated": modulated is True, "offset_groups": groups} if stages else None
    for place in places:
        own = made if place == places[0] or 4 in stages else None
        target.put(f"{place}.spatial_conv", own, on)
    if stages:
        target.put(f"{places[0]}.spatial_stages", stages, on)


def _initial_weights(target: Target, root: Node, places: list[str]) -> None:
    node, spec = root.at("MODEL.WEIGHTS"), str(taken(root, "MODEL.WEIGHTS"))
    known = next((ours for word, ours in _WEIGHTS.items() if f"/{word}.pkl" in spec), None)
    if known is not None or not spec:
        for place in places:
            target.put(f"{place}.pretrained", known, node)
        return
    ours = target.get(f"{places[0]}.pretrained")
    kept = f"the recipe's ({ours}) are kept" if ours else "the recipe has none"
    node.refuse(
        f"weights {spec!r} are not part of a recipe, and {kept}; for those of a detector: det-core import-weights FILE "
        "--from detectron2 -o init.safetensors, then det-core train --init init.safetensors"
    )


def _neck(target: Target, root: Node) -> None:
    path = "detector.neck"
    node = root.at("MODEL.FPN")
    if target.get(f"{path}.type") != "fpn":
        node.take()
        return
    put_key(target, root, "MODEL.FPN.OUT_CHANNELS", f"{path}.channels")
    put_norm(target, root, "MODEL.FPN.NORM", f"{path}.norm")
    inputs = [str(name) for name in parts(taken(root, "MODEL.FPN.IN_FEATURES"))]
    if inputs:
        start = {"res2": 0, "res3": 1, "res4": 2, "res5": 3}.get(inputs[0])
        if start is None:
            node.at("IN_FEATURES").refuse(f"{shown(inputs)}: not stages of a ResNet")
        else:
            target.put(f"{path}.start", start, node.at("IN_FEATURES"))
    node.expect("FUSE_TYPE", "sum")
