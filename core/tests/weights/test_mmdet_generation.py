"""Versions of mmdetection, and the generation that parameter names belong to."""

from __future__ import annotations

import pytest

from det_core.weights.mmdet_generation import generation_of, generation_of_version, version_numbers


@pytest.mark.parametrize(
    ("text", "numbers", "generation"),
    [
        ("0.5.7", (0, 5, 7), "mmdet1"),
        ("0.6.0+3cf1", (0, 6, 0), "mmdet1"),
        ("0.6.rc0+abc", (0, 6), "mmdet1"),
        ("1.0rc0+abc1234", (1, 0), "mmdet1"),
        ("1.1.0", (1, 1, 0), "mmdet1"),
        ("1.2.0+unknown", (1, 2, 0), "mmdet1"),
        ("2.0.0", (2, 0, 0), "mmdet"),
        ("2.10.0", (2, 10, 0), "mmdet"),
        ("v3.3.0", (3, 3, 0), "mmdet"),
        ("10.0", (10, 0), "mmdet"),
        ("unknown", None, None),
        ("", None, None),
    ],
)
def test_a_version(text, numbers, generation):
    assert version_numbers(text) == numbers
    assert generation_of_version(numbers) == generation


def test_versions_are_compared_as_numbers():
    assert version_numbers("2.10.0") > version_numbers("2.5.0")  # type: ignore[operator]


TWO_STAGE = ["backbone.conv1.weight", "neck.fpn_convs.0.conv.weight", "rpn_head.rpn_cls.weight"]


@pytest.mark.parametrize(
    ("names", "generation"),
    [
        ([*TWO_STAGE, "bbox_head.fc_cls.weight"], "mmdet1"),
        ([*TWO_STAGE, "bbox_head.0.fc_cls.weight"], "mmdet1"),
        ([*TWO_STAGE, "bbox_head.fcs.weight"], "mmdet1"),
        (["backbone.conv1.weight", "bbox_head.fc_cls.weight"], "mmdet1"),  # Fast R-CNN
        (["backbone.conv1.weight", "bbox_head.2.fc_reg.bias"], "mmdet1"),
        (["mask_head.conv_logits.weight"], "mmdet1"),
        (["shared_head.layer4.0.conv1.weight"], "mmdet1"),
        (["bbox_roi_extractor.roi_layers.0.offset_fc.0.weight"], "mmdet1"),
        (["semantic_head.conv_logits.weight"], "mmdet1"),
        ([*TWO_STAGE, "roi_head.bbox_head.fc_cls.weight"], "mmdet"),
        (["roi_head.mask_head.conv_logits.weight"], "mmdet"),
        (TWO_STAGE, None),  # RPN
        (["rpn_head.conv_loc.weight", "rpn_head.feature_adaption.conv_offset.weight"], None),  # GA-RPN
        (["bbox_head.retina_cls.weight", "bbox_head.cls_convs.0.weight"], "mmdet1"),  # RetinaNet, up to 0.6
        (["bbox_head.retina_cls.weight", "bbox_head.cls_convs.0.conv.weight"], None),
        (["bbox_head.retina_cls.weight", "bbox_head.conv_loc.weight", "bbox_head.cls_convs.0.conv.weight"], None),
        (["backbone.features.0.weight", "backbone.extra.0.weight", "bbox_head.cls_convs.0.weight"], None),  # SSD
        (["backbone.features.0.weight", "backbone.l2_norm.weight"], None),
        (["neck.l2_norm.weight"], "mmdet"),
        (["neck.extra_layers.0.0.conv.weight", "bbox_head.cls_convs.0.0.weight"], "mmdet"),
        (["backbone.layer2.0.conv2_offset.weight", "bbox_head.retina_cls.weight"], None),
        ([], None),
    ],
)
def test_the_generation_of_names(names, generation):
    assert generation_of(names) == generation
    assert generation_of(f"module.{name}" for name in names) == generation
