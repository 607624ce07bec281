"""The backbones of published rows, and what C4 makes of them."""

from __future__ import annotations

import pytest

from det_core.model.detector_config import PreprocessConfig
from det_core.model.layer_config import FrozenBatchNormConfig
from det_core.zoo import Row
from det_plugin_resnet.backbones import BACKBONES, CAFFE, backbone_of, c4_trunk_of, preprocess_of
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig


def row_of(network: str, kind: str = "fpn") -> Row:
    return Row(model="faster-rcnn", network=network, kind=kind, schedule="1x")


def test_resnext_50() -> None:
    config = backbone_of(row_of("x50-32x4d"))
    assert (config.depth, config.groups, config.base_width) == (50, 32, 4)
    assert config.pretrained == "torchvision:resnext50_32x4d"


@pytest.mark.parametrize("network", BACKBONES)
def test_a_pyramid_is_built_on_all_stages_of_the_network(network: str) -> None:
    assert backbone_of(row_of(network)) is BACKBONES[network]
    assert BACKBONES[network].stages == (1, 2, 3, 4)


def test_c4_has_the_last_stage_as_a_trunk() -> None:
    row = row_of("r101-caffe", "c4")
    norm, weights = FrozenBatchNormConfig(), "detectron2:R-101"
    assert backbone_of(row) == ResNetConfig(depth=101, stages=(3,), style="caffe", norm=norm, pretrained=weights)
    assert c4_trunk_of(row) == ResNetStageConfig(depth=101, number=4, style="caffe", norm=norm, pretrained=weights)


def test_caffe_weights_expect_their_own_images() -> None:
    found = {network: preprocess_of(row_of(network)) for network in BACKBONES}
    caffe = {"r50-caffe", "r101-caffe"}
    assert found == {network: CAFFE if network in caffe else PreprocessConfig() for network in BACKBONES}
