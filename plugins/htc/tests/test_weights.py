"""mmdet's names of the weights."""

from __future__ import annotations

from attrs import evolve

from det_core.load import load_recipe
from det_core.weights.translate_names import translate

NAMES = {
    "box_heads.0.scores.weight": "bbox_head.0.fc_cls.weight",
    "box_heads.2.deltas.bias": "bbox_head.2.fc_reg.bias",
    "mask_heads.0.convs.0.conv.weight": "mask_head.0.convs.0.conv.weight",
    "mask_heads.1.logits.weight": "mask_head.1.conv_logits.weight",
    "flows.0.conv.weight": "mask_head.1.conv_res.conv.weight",
    "flows.1.conv.bias": "mask_head.2.conv_res.conv.bias",
    "semantic.lateral.4.conv.weight": "semantic_head.lateral_convs.4.conv.weight",
    "semantic.convs.1.conv.bias": "semantic_head.convs.1.conv.bias",
    "semantic.embedding.conv.weight": "semantic_head.conv_embedding.conv.weight",
    "semantic.logits.bias": "semantic_head.conv_logits.bias",
}


def test_the_names(tiny):
    assert {key: translate("mmdet", tiny.htc, key) for key in NAMES} == NAMES


def stages(count: int) -> set[str]:
    """The weights of the second stages of a published checkpoint, as mmdet names them."""
    both = ("weight", "bias")
    names = set()
    for i in range(count):
        boxes = ("shared_fcs.0", "shared_fcs.1", "fc_cls", "fc_reg")
        masks = (*(f"convs.{n}.conv" for n in range(4)), "upsample", "conv_logits")
        names |= {f"bbox_head.{i}.{layer}.{kind}" for layer in boxes for kind in both}
        names |= {f"mask_head.{i}.{layer}.{kind}" for layer in masks for kind in both}
        names |= {f"mask_head.{i}.conv_res.conv.{kind}" for kind in both if i}
    return names


def semantic() -> set[str]:
    layers = (*(f"lateral_convs.{n}.conv" for n in range(5)), *(f"convs.{n}.conv" for n in range(4)))
    layers = (*layers, "conv_embedding.conv", "conv_logits")
    return {f"semantic_head.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_every_weight_of_a_published_checkpoint_has_its_name():
    import torch

    for name, expected in (
        ("htc/r50-fpn-1x", stages(3) | semantic()),
        ("htc-without-semantic/r50-fpn-1x", stages(3)),
    ):
        with torch.device("meta"):
            detector = load_recipe(name).detector.build(num_classes=80)
        head = detector.roi_head
        assert {translate("mmdet", head.config, key) for key in head.state_dict()} == expected


def test_without_flow_there_is_none_to_name(tiny):
    config = evolve(tiny.htc, information_flow=False)
    keys = config.build(tiny.levels, 3).state_dict()
    assert not [key for key in keys if "conv_res" in translate("mmdet", config, key)]


def test_what_fine_tuning_leaves_fresh(tiny):
    few, many = (tiny.build(tiny.htc, k) for k in (2, 5))
    one, other = few.state_dict(), many.state_dict()
    assert few.class_dependent() == [key for key in one if one[key].shape != other[key].shape]
    assert sorted(few.class_dependent()) == sorted(
        f"roi_head.{part}.{number}.{layer}.{kind}"
        for part, layer in (("box_heads", "scores"), ("mask_heads", "logits"))
        for number in range(3)
        for kind in ("weight", "bias")
    )
