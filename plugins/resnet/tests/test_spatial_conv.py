"""Convolutions of other kinds: in all of a ResNet, in the 3x3 layers of some stages, and group norms' names."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from attrs import asdict
from torch import nn

from det_core.model.layer_config import BatchNormConfig, GroupNormConfig
from det_core.slots import ConvConfig
from det_core.specs import ConvSpec, RegionSpec
from det_core.testing.isolated_plugins import stub_config
from det_core.weights.translate_names import translate
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig


class Marked(nn.Conv2d):
    """A convolution that can be told from others."""


class Other(Marked):
    """A second one."""


@stub_config
class MarkedConfig(ConvConfig):
    """Builds `Marked`."""

    type: ClassVar[str] = "marked"
    other: bool = False

    def build(self, spec: ConvSpec) -> nn.Module:
        return (Other if self.other else Marked)(**asdict(spec))


def names(module: nn.Module, kind: type[nn.Module]) -> set[str]:
    return {name for name, part in module.named_modules() if type(part) is kind}


def blocks(stages: tuple[int, ...], counts: dict[int, int], *convs: str) -> set[str]:
    return {f"layer{n}.{i}.{conv}" for n in stages for i in range(counts[n]) for conv in convs}


RESNET18, RESNET50 = dict.fromkeys((1, 2, 3, 4), 2), {1: 3, 2: 4, 3: 6, 4: 3}


@pytest.mark.parametrize("stages", [None, (4,), (1, 2, 3, 4), ()])
@pytest.mark.parametrize("style", ["pytorch", "caffe"])
def test_the_3x3_of_bottlenecks_in_the_stages_that_are_named(stages, style):
    chosen = {} if stages is None else {"spatial_stages": stages}
    with torch.device("meta"):
        module = ResNetConfig(depth=50, style=style, spatial_conv=MarkedConfig(), **chosen).build()
    assert names(module, Marked) == blocks((2, 3, 4) if stages is None else stages, RESNET50, "conv2")


def test_both_convolutions_of_a_basic_block_and_no_shortcut():
    with torch.device("meta"):
        module = ResNetConfig(depth=18, spatial_conv=MarkedConfig()).build()
    assert names(module, Marked) == blocks((2, 3, 4), RESNET18, "conv1", "conv2")


def test_conv_is_every_layer_the_stem_too():
    with torch.device("meta"):
        module = ResNetConfig(depth=50, conv=MarkedConfig()).build()
    assert names(module, nn.Conv2d) == set()
    assert "conv1" in names(module, Marked)
    assert len(names(module, Marked)) == 53


def test_spatial_conv_is_before_conv():
    with torch.device("meta"):
        module = ResNetConfig(depth=50, conv=MarkedConfig(), spatial_conv=MarkedConfig(other=True)).build()
    assert names(module, Other) == blocks((2, 3, 4), RESNET50, "conv2")
    assert len(names(module, Marked)) == 53 - 13


def test_another_kind_has_the_strides_groups_and_padding_of_the_usual():
    usual, other = (
        ResNetConfig(depth=50, groups=32, base_width=4, stages=(3,), norm=GroupNormConfig(), **kind).build()
        for kind in ({}, {"spatial_conv": MarkedConfig()})
    )
    other.load_state_dict(usual.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(other(x), usual(x))


def test_the_spatial_convolutions_of_a_stage_that_is_a_trunk():
    with torch.device("meta"):
        stage = ResNetStageConfig(depth=50, spatial_conv=MarkedConfig()).build(RegionSpec(channels=1024, size=(14, 14)))
    assert names(stage, Marked) == blocks((4,), RESNET50, "conv2")


@pytest.mark.parametrize("stage", [0, 5])
def test_a_stage_that_there_is_not(stage):
    with pytest.raises(ValueError, match=rf"spatial_stages\[0\]: found {stage}, allowed: 1, 2, 3, 4"):
        ResNetConfig(spatial_stages=(stage,))


# group norms of mmdetection's checkpoints


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("conv1.weight", "conv1.weight"),
        ("bn1.weight", "gn1.weight"),
        ("layer1.0.bn1.bias", "layer1.0.gn1.bias"),
        ("layer4.2.bn3.weight", "layer4.2.gn3.weight"),
        ("layer3.10.conv2.weight", "layer3.10.conv2.weight"),
        ("layer2.0.downsample.1.weight", "layer2.0.downsample.1.weight"),
    ],
)
def test_group_norms_are_called_gn_by_mmdet_alone(ours, theirs):
    config = ResNetConfig(norm=GroupNormConfig())
    assert translate("mmdet", config, ours) == theirs
    assert translate("torchvision", config, ours) == ours
    assert translate("mmdet", ResNetConfig(norm=BatchNormConfig()), ours) == ours
    if ours.startswith("layer4"):
        assert translate("mmdet", ResNetStageConfig(norm=GroupNormConfig()), ours) == theirs
