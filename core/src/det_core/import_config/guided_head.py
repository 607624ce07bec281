"""The heads of Guided Anchoring of mmdetection as changes to those of the nearest recipe."""

from __future__ import annotations

from det_core.import_config.ledger import Node, shown
from det_core.import_config.parts import assigner, coder, conv, layer_norm, loss, put_numbers, sampler
from det_core.import_config.places import DENSE
from det_core.import_config.target import Target
from det_core.weights.mmdet_values import numbers

HEADS = {"ga_rpn": "GARPNHead", "ga_retinanet": "GARetinaHead"}
GUIDED = f"{DENSE}.guided"


def guided_head(target: Target, node: Node, train: Node, strides: tuple[float, ...]) -> None:
    """A GA-RPN or GA-RetinaNet head.

    train: the settings of its training. strides: of the maps that it works on.
    """
    node.ignore("in_channels", "num_classes", "init_cfg")
    _generators(target, node, strides)
    put_numbers(target, node.first("anchor_coder.target_means", "anchoring_means"), f"{GUIDED}.coder.means")
    put_numbers(target, node.first("anchor_coder.target_stds", "anchoring_stds"), f"{GUIDED}.coder.stds")
    node.at("anchor_coder").ignore("type")
    coder(target, node, f"{DENSE}.coder")
    for theirs, ours in (
        ("loss_loc", f"{GUIDED}.location_loss"),
        ("loss_shape", f"{GUIDED}.shape_loss"),
        ("loss_cls", f"{DENSE}.cls_loss"),
        ("loss_bbox", f"{DENSE}.box_loss"),
    ):
        loss(target, node.at(theirs), ours)
    target.copy_number(f"{GUIDED}.location_threshold", node.at("loc_filter_thr"), 0.01)
    target.copy(f"{GUIDED}.offset_groups", node.first("deform_groups", "deformable_groups"), 4)
    target.copy(f"{DENSE}.channels", node.at("feat_channels"), 256)
    conv(target, node.at("conv_cfg"), f"{DENSE}.conv")
    if target.has(f"{DENSE}.num_convs"):
        target.copy(f"{DENSE}.num_convs", node.at("stacked_convs"), 4)
        layer_norm(target, node.at("norm_cfg"), f"{DENSE}.norm")
    _training(target, train)


def _generators(target: Target, node: Node, strides: tuple[float, ...]) -> None:
    """Where anchors are, and the shapes by which a place is assigned to an object."""
    approximate, square = node.at("approx_anchor_generator"), node.at("square_anchor_generator")
    made = approximate if approximate.given else node
    target.copy_number(f"{GUIDED}.base_scale", made.at("octave_base_scale"), 8.0)
    target.copy(f"{GUIDED}.scales_per_octave", made.at("scales_per_octave"), 3)
    ratios = made.first("ratios", "octave_ratios")
    target.put(f"{GUIDED}.ratios", [float(v) for v in numbers(ratios.take()) or (0.5, 1.0, 2.0)], ratios)
    square.expect("ratios", [1.0])
    square.expect("scales", [target.get(f"{GUIDED}.base_scale")], why="anchors begin as squares of the base scale")
    for where in (made.first("strides", "anchor_strides"), square.at("strides")):
        if where.given and numbers(where.take()) not in (None, strides):
            where.refuse(f"{shown(where.value)}; anchors have the strides of their feature maps, here {list(strides)}")
    for generator in (approximate, square):
        generator.ignore("type")
        generator.expect("center_offset", 0.0)
    node.ignore("anchor_base_sizes")


def _training(target: Target, train: Node) -> None:
    assigner(target, train.at("ga_assigner"), f"{GUIDED}.shape_assigner", kind="ApproxMaxIoUAssigner")
    sampler(target, train.at("ga_sampler"), f"{GUIDED}.shape_sampler")
    for theirs, ours in (("center_ratio", "centre_ratio"), ("ignore_ratio", "ignore_ratio")):
        target.copy_number(f"{GUIDED}.{ours}", train.at(theirs), target.get(f"{GUIDED}.{ours}"))
    target.copy(f"{GUIDED}.allowed_border", train.at("allowed_border"), -1)
    assigner(target, train.at("assigner"), f"{DENSE}.assigner")
    sampler(target, train.at("sampler"), f"{DENSE}.sampler")
    train.expect("pos_weight", -1)
    train.ignore("debug")
