"""mmdet's names of a cascade's weights."""

from __future__ import annotations

from det_core.weights.translate_names import translate


def test_heads_are_numbered_by_stage(tiny):
    names = {
        "box_heads.0.scores.weight": "bbox_head.0.fc_cls.weight",
        "box_heads.2.deltas.bias": "bbox_head.2.fc_reg.bias",
        "box_heads.1.fcs.0.weight": "bbox_head.1.shared_fcs.0.weight",
        "mask_heads.1.logits.weight": "mask_head.1.conv_logits.weight",
        "mask_heads.2.upsample.bias": "mask_head.2.upsample.bias",
    }
    assert {key: translate("mmdet", tiny.mask, key) for key in names} == names


def test_the_trunk_is_one(tiny):
    ours = "trunk.blocks.0.conv1.weight"
    assert translate("mmdet", tiny.c4_mask, ours).startswith("shared_head.")


def test_what_fine_tuning_leaves_fresh(tiny):
    few, many = (tiny.build(tiny.mask, k) for k in (2, 5))
    one, other = few.state_dict(), many.state_dict()
    assert few.class_dependent() == [key for key in one if one[key].shape != other[key].shape]
    assert few.class_dependent() == [
        f"roi_head.{part}.{number}.{layer}.{kind}"
        for part, layer in (("box_heads", "scores"), ("mask_heads", "logits"))
        for number in range(3)
        for kind in ("weight", "bias")
    ]
