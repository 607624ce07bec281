"""Small parts of models: norms, convolutions, losses, coders, assigners and samplers of mmdetection as det's."""

from __future__ import annotations

from typing import Any

from det_core.import_config.ledger import NO_COUNTERPART, Node, shown
from det_core.import_config.target import Target
from det_core.weights.mmdet_values import number, numbers, whole

NOT_HERE = "is not a part of this project; the recipe's is kept"


def batch_norm(node: Node, *, evaluated: bool, default_trained: bool = True) -> dict[str, Any] | None:
    """The norm of `norm_cfg`; None, with a note, if there is none like it.

    evaluated: whether its statistics are fixed in training (`norm_eval`).
    """
    kind = node.type or "BN"
    trained = node.first("requires_grad", "frozen")
    is_trained = bool(trained.take(default_trained)) != (trained.path[-1:] == ("frozen",) and trained.given)
    if kind == "GN":
        return {"type": "group_norm", "groups": whole(node.at("num_groups").take()) or 32}
    if kind not in ("BN", "BN2d", "SyncBN"):
        node.refuse(f"norm {shown(node.value)} {NOT_HERE}")
        return None
    made: dict[str, Any] = {"eps": number(node.at("eps").take()) or 1e-5}
    if not is_trained and evaluated:
        node.at("momentum").take()
        return {"type": "frozen_batch_norm", **made}
    if not is_trained:
        node.at("requires_grad").refuse("the norm's parameters are trained, since its statistics are")
    synchronised = kind == "SyncBN" and not evaluated  # fixed statistics are the same in all processes
    made["momentum"] = number(node.at("momentum").take()) or 0.1
    return {"type": "batch_norm", **made, "frozen_statistics": evaluated, "synchronised": synchronised}


def layer_norm(target: Target, node: Node, path: str) -> None:
    """`norm_cfg` of a neck or head, which has none by default."""
    if not node.given or node.value is None:
        node.take()
        if target.get(path) is not None:
            target.put(path, None, node)
        return
    made = batch_norm(node, evaluated=False)
    if made is not None:
        target.put(path, made, node)


def conv(target: Target, node: Node, path: str) -> None:
    """`conv_cfg`: plain convolutions, or those with standardised weights."""
    kind = node.type if node.given and node.value is not None else "Conv2d"
    known = {"Conv2d": "conv2d", "Conv": "conv2d", "ConvWS": "ws_conv2d"}
    if kind not in known:
        node.refuse(f"convolution {shown(node.value)} {NOT_HERE}")
    elif target.has(path) or known[kind] != "conv2d":
        target.put(path, {"type": known[kind]}, node)


def loss(target: Target, node: Node, path: str) -> None:
    """A loss with its weight."""
    if not node.given:
        return
    made = _loss(node)
    if made is None:
        node.refuse(f"loss {shown(node.value)} {NOT_HERE}")
        return
    node.expect("reduction", "mean")
    made["weight"] = node.at("loss_weight").number(1.0)
    for child in node.children():
        if child.path not in node.ledger.used:
            child.refuse(f"{shown(child.value)} {NO_COUNTERPART}")
    target.put(path, made, node)


def _loss(node: Node) -> dict[str, Any] | None:
    kind = node.type
    if kind == "CrossEntropyLoss":
        if node.at("use_sigmoid").take(False) or node.at("use_mask").take(False):
            return {"type": "binary_cross_entropy"}
        return {"type": "cross_entropy", "class_weights": _weights(node.at("class_weight"))}
    if kind == "FocalLoss":
        node.expect("use_sigmoid", True)
        return {"type": "focal", "gamma": node.at("gamma").number(2.0), "alpha": node.at("alpha").number(0.25)}
    if kind == "SmoothL1Loss":
        return {"type": "smooth_l1", "beta": node.at("beta").number(1.0)}
    if kind == "BoundedIoULoss":
        return {"type": "bounded_iou", "beta": node.at("beta").number(0.2), "eps": node.at("eps").number(1e-3)}
    return {"L1Loss": {"type": "l1"}, "GIoULoss": {"type": "giou"}}.get(kind)


def _weights(node: Node) -> list[float] | None:
    found = numbers(node.value) if node.given else None
    if found is None:
        return None
    node.take()
    return list(found)


def coder(target: Target, head: Node, path: str) -> None:
    """Means and deviations of box targets: of a `bbox_coder`, or before 2.0 of the head."""
    node = head.at("bbox_coder")
    if node.given and node.type not in ("DeltaXYWHBBoxCoder", ""):
        node.refuse(f"box coder {shown(node.value)} {NOT_HERE}")
        return
    for ours in ("means", "stds"):
        put_numbers(target, head.first(f"bbox_coder.target_{ours}", f"target_{ours}"), f"{path}.{ours}")
    node.expect("clip_border", True)


def put_numbers(target: Target, node: Node, path: str) -> None:
    """Set a list of numbers, if it is one."""
    found = numbers(node.value) if node.given else None
    if found is not None:
        target.put(path, [float(v) for v in found], node)


def roi_align(target: Target, layer: Node, path: str, size: int) -> None:
    """The size of an RoIAlign, by default `size`, and its samples per bin."""
    target.copy(f"{path}.size", layer.first("output_size", "out_size"), size)
    target.copy(f"{path}.sampling", layer.first("sampling_ratio", "sample_num"), 0)


def assigner(target: Target, node: Node, path: str, kind: str = "MaxIoUAssigner") -> None:
    """The assigner of anchors or proposals to objects; kind: its class."""
    if not node.given:
        return
    if node.type != kind:
        node.refuse(f"assigner {shown(node.value)} {NOT_HERE}")
        return
    for theirs, ours, default in (
        ("pos_iou_thr", "positive", None),
        ("neg_iou_thr", "negative", None),
        ("min_pos_iou", "min_positive", 0.0),
        ("match_low_quality", "low_quality", True),
        ("gt_max_assign_all", "all_ties", True),
    ):
        value = node.at(theirs)
        found = value.take(default)
        if isinstance(found, (bool, int, float)):
            target.put(f"{path}.{ours}", found if isinstance(found, bool) else float(found), value)
        elif value.given:
            value.refuse(f"{shown(found)} {NO_COUNTERPART}, only a number")
    node.expect("ignore_iof_thr", -1, why="crowd regions are excluded by the rule of the recipe's assigner")
    node.ignore("gpu_assign_thr", "iou_calculator")


def sampler(target: Target, node: Node, path: str, *, adds: str = "") -> None:
    """The sampler of anchors or proposals; adds: the setting that adds the objects to the proposals."""
    if not node.given:
        return
    if node.type == "PseudoSampler":
        node.take()
        if target.has(path):
            node.refuse(f"sampler PseudoSampler {NOT_HERE}")
        return
    if node.type != "RandomSampler":
        node.refuse(f"sampler {shown(node.value)} {NOT_HERE}")
        return
    target.copy(f"{path}.count", node.at("num"), 512)
    target.copy_number(f"{path}.positive_fraction", node.at("pos_fraction"), 0.5)
    node.expect("neg_pos_ub", -1)
    if adds:
        target.copy(adds, node.at("add_gt_as_proposals"), True)
    else:
        node.expect("add_gt_as_proposals", False)
