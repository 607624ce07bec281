"""The names that others have for the weights, and how torchvision lays out the classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchvision.models.detection import ssd300_vgg16

from det_core.boxes.box_config import GridAnchorsConfig
from det_core.load import load_recipe
from det_core.model.layer_config import BatchNormConfig
from det_core.settings import Component, evolve
from det_core.weights.fill_detector import import_weights
from det_core.weights.translate_names import detector_names, locate, translate
from det_plugin_ssd.config import SSDAnchorsConfig, SSDHeadConfig, SSDNeckConfig, VGGConfig

CASE = Path(__file__).parents[3] / "tests" / "parity" / "cases" / "ssd300_coco.json"
NAMES = [
    (VGGConfig(), "features.28.weight", "features.28.weight", "extra.0.5.weight"),
    (VGGConfig(), "features.21.bias", "features.21.bias", "features.21.bias"),
    (VGGConfig(), "features.24.weight", "features.24.weight", "extra.0.1.weight"),
    (VGGConfig(), "features.31.weight", "features.31.weight", "extra.0.7.1.weight"),
    (VGGConfig(), "features.33.bias", "features.33.bias", "extra.0.7.3.bias"),
    (SSDNeckConfig(), "l2_norm.weight", "l2_norm.weight", "scale_weight"),
    (SSDNeckConfig(), "extra.0.0.conv.weight", "extra_layers.0.0.conv.weight", "extra.1.0.weight"),
    (SSDNeckConfig(), "extra.3.1.conv.bias", "extra_layers.3.1.conv.bias", "extra.4.2.bias"),
    (SSDHeadConfig(), "scores.5.weight", "cls_convs.5.0.weight", "classification_head.module_list.5.weight"),
    (SSDHeadConfig(), "deltas.0.bias", "reg_convs.0.0.bias", "regression_head.module_list.0.bias"),
]
LITE = {
    "scores.2.depthwise.conv.weight": "classification_head.module_list.2.0.0.weight",
    "scores.2.depthwise.norm.running_mean": "classification_head.module_list.2.0.1.running_mean",
    "deltas.0.predict.bias": "regression_head.module_list.0.1.bias",
}


def test_torchvision_s_names_of_ssdlite() -> None:
    for key, name in LITE.items():
        assert translate("torchvision", SSDHeadConfig(separable=True, norm=BatchNormConfig()), key) == name
    neck = SSDNeckConfig(separable=True, scale=None, norm=BatchNormConfig())
    assert translate("torchvision", neck, "extra.3.1.conv.weight") == "extra.3.1.0.weight"
    assert translate("torchvision", neck, "extra.3.2.norm.bias") == "extra.3.2.1.bias"


@pytest.mark.parametrize(("config", "name", "mmdet", "torchvision"), NAMES, ids=[n[1] for n in NAMES])
def test_the_names(config: Component, name: str, mmdet: str, torchvision: str) -> None:
    assert translate("mmdet", config, name) == mmdet
    assert translate("torchvision", config, name) == torchvision


@pytest.mark.parametrize("source", ["mmdet", "torchvision"])
def test_every_weight_of_theirs_has_its_own(source: str) -> None:
    if source == "mmdet":
        theirs, name = set(json.loads(CASE.read_text())["weights"]), "ssd/vgg16-300-coco-120e"
    else:
        with torch.device("meta"):
            theirs = set(ssd300_vgg16(weights=None, weights_backbone=None).state_dict())
        name = "ssd/torchvision-vgg16-300"
    config = load_recipe(name).detector
    with torch.device("meta"):
        keys = list(config.build(num_classes=80).state_dict())
    parts = detector_names(source, config, theirs)
    assert {locate(source, parts, key).name for key in keys} == theirs


def head_config(anchors: str) -> SSDHeadConfig:
    if anchors == "grid":
        return SSDHeadConfig(anchors=GridAnchorsConfig(scales=(2.0,), ratios=(1.0, 2.0, 0.5)))
    return SSDHeadConfig(anchors=SSDAnchorsConfig(sizes=(8.0, 16.0, 32.0), ratios=((2.0,), (2.0, 3.0))))


@pytest.mark.parametrize("anchors", ["ssd", "grid"])
def test_background_is_torchvision_s_first_class_of_each_anchor(anchors: str) -> None:
    config = load_recipe("ssd/torchvision-vgg16-300").detector
    neck = SSDNeckConfig(extra=())
    config = evolve(config, backbone=VGGConfig(channels=1), neck=neck, dense_head=head_config(anchors))
    detector = config.build(num_classes=2)
    source = {}
    parts = detector_names("torchvision", config, ["backbone.scale_weight"])
    for key, value in detector.state_dict().items():
        origin = locate("torchvision", parts, key)
        source[origin.name] = torch.zeros_like(value)
        if ".scores." in key and key.endswith("bias"):  # background 9, then the classes 0 and 1
            source[origin.name] = torch.tensor([9.0, 0.0, 1.0]).repeat(len(value) // 3)
    import_weights(source, source="torchvision", detector=detector, force=True)
    for layer in detector.dense_head.scores:
        assert layer.bias.view(-1, 3).unique(dim=0).tolist() == [[0.0, 1.0, 9.0]]


def test_what_fine_tuning_leaves_fresh() -> None:
    config = load_recipe("ssd/vgg16-demo").detector
    few, many = (config.build(num_classes=k) for k in (2, 5))
    one, other = few.state_dict(), many.state_dict()
    assert few.class_dependent() == [key for key in one if one[key].shape != other[key].shape]
    assert len(few.class_dependent()) == 2 * 3
