"""Swin Transformers and ConvNeXts of mmdetection, which are networks of timm here."""

from __future__ import annotations

from collections.abc import Mapping

from det_core.import_config.ledger import Node, shown
from det_core.import_config.parts import NOT_HERE
from det_core.import_config.target import Target
from det_core.weights.mmdet_model import network_name

PATH = "detector.backbone"
NETWORKS: Mapping[str, str] = {
    "swin-t": "swin_tiny_patch4_window7_224",
    "swin-s": "swin_small_patch4_window7_224",
    "convnext-t": "convnext_tiny",
    "convnext-s": "convnext_small",
    "convnext-b": "convnext_base",
}
# What mmdetection's networks have, as timm's do.
_FIXED: Mapping[str, Mapping[str, object]] = {
    "SwinTransformer": {
        "window_size": 7,
        "mlp_ratio": 4,
        "qkv_bias": True,
        "qk_scale": None,
        "patch_norm": True,
        "drop_rate": 0.0,
        "attn_drop_rate": 0.0,
        "use_abs_pos_embed": False,
        "patch_size": 4,
        "strides": [4, 2, 2, 2],
    },
    "ConvNeXt": {"layer_scale_init_value": 1.0, "gap_before_final_norm": False, "use_grn": False},
}
# Parameters that do not decay in Swin's configurations; the recipe's rules say the same of timm's names.
_NO_DECAY = ("absolute_pos_embed", "relative_position_bias_table", "norm")


def timm_backbone(target: Target, node: Node) -> bool:
    """Whether the backbone is one of these, which is then taken over if the recipe's is timm's."""
    kind = node.type
    if kind not in _FIXED or target.get(f"{PATH}.type") != "timm":
        return False
    name = network_name(node.value)
    if name is None or name not in NETWORKS:
        node.refuse(f"backbone {shown(node.value)} of this size {NOT_HERE} ({target.get(f'{PATH}.name')})")
        return True
    node.ignore("arch", "embed_dims", "depths", "num_heads", "convert_weights", "in_channels", "out_indices")
    target.put(f"{PATH}.name", NETWORKS[name], node.at("arch") if kind == "ConvNeXt" else node.at("depths"))
    if target.get(f"{PATH}.name") != target.base["detector"]["backbone"]["name"]:
        target.put(f"{PATH}.pretrained", f"timm:{NETWORKS[name]}", node.at("depths"))
    target.copy_number(f"{PATH}.drop_path_rate", node.at("drop_path_rate"), 0.1 if kind == "SwinTransformer" else 0.0)
    frozen = node.at("frozen_stages")
    if frozen.given:  # 0 freezes Swin's stem, and nothing of ConvNeXt
        nothing = kind == "ConvNeXt" and frozen.value == 0
        target.put(f"{PATH}.frozen_stages", -1 if nothing else frozen.take(), frozen)
    target.copy(f"{PATH}.checkpointing", node.at("with_cp"), False)
    for key, value in _FIXED[kind].items():
        node.expect(key, value)
    return True


def usual_rules(target: Target, parameters: Node, constructor: Node) -> bool:
    """Whether rules for parameters are those of these networks' configurations, which the recipe has already."""
    if target.get(f"{PATH}.type") != "timm":
        return False
    if constructor.value == "LearningRateDecayOptimizerConstructor":
        parameters.expect("decay_rate", 0.95, why="the recipe's rates by layer are kept")
        parameters.expect("decay_type", "layer_wise")
        parameters.expect("num_layers", 6)
        constructor.take()
        return True
    rules = parameters.at("custom_keys")
    names = [rule.path[-1] for rule in rules.children()] if rules.given else []
    if names and set(names) <= set(_NO_DECAY) and all(rule.value == {"decay_mult": 0.0} for rule in rules.children()):
        rules.take()
        return True
    return False
