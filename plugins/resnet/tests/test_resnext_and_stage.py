"""ResNeXt against torchvision's, and a stage of ResNet as the trunk of a RoI head."""

from __future__ import annotations

import pytest
import torch
import torchvision

from det_core.errors import ConfigError
from det_core.model.layer_config import BatchNormConfig
from det_core.specs import RegionSpec
from det_core.testing import contract_checks
from det_plugin_resnet.config import ResNetConfig, ResNetStageConfig

REGIONS = RegionSpec(channels=1024, size=(14, 14))


@pytest.mark.parametrize(
    ("name", "depth", "groups", "width"), [("resnext50_32x4d", 50, 32, 4), ("resnext101_64x4d", 101, 64, 4)]
)
def test_resnext_has_torchvisions_parameters(name, depth, groups, width):
    with torch.device("meta"):
        ours = ResNetConfig(depth=depth, groups=groups, base_width=width).build().state_dict()
        theirs = getattr(torchvision.models, name)().state_dict()
    shapes = {key: value.shape for key, value in theirs.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in ours.items()} == shapes


def test_resnext_computes_what_torchvisions_does():
    torch.manual_seed(0)
    theirs = torchvision.models.resnext50_32x4d().eval()
    ours = ResNetConfig(depth=50, groups=32, base_width=4, stages=(4,)).build().eval()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    image = torch.randn(1, 3, 64, 64)
    captured = []
    theirs.layer4.register_forward_hook(lambda module, inputs, output: captured.append(output))
    with torch.no_grad():
        theirs(image)
        torch.testing.assert_close(ours(image)[0], captured[0])


@pytest.mark.parametrize("config", [ResNetConfig, ResNetStageConfig])
def test_groups_want_bottlenecks(config):
    with pytest.raises(ConfigError, match="depth 18 has no bottlenecks, so groups must be 1 and base_width 64; use"):
        config(depth=18, groups=2)


def test_a_stage_is_the_backbones_own():
    """res5 on a whole map equals the backbone's fourth stage on it, in both styles."""
    for style in ("pytorch", "caffe"):
        torch.manual_seed(0)
        backbone = ResNetConfig(depth=50, style=style, stages=(3, 4), norm=BatchNormConfig()).build().eval()
        stage = ResNetStageConfig(depth=50, style=style, norm=BatchNormConfig()).build(REGIONS).eval()
        stage.load_state_dict({k: v for k, v in backbone.state_dict().items() if k.startswith("layer4.")})
        with torch.no_grad():
            before, after = backbone(torch.randn(1, 3, 64, 96))
            torch.testing.assert_close(stage(before), after)


@pytest.mark.parametrize(("stride", "size"), [(1, (14, 14)), (2, (7, 7))])
def test_what_a_stage_hands_on(stride, size):
    stage = ResNetStageConfig(depth=50, stride=stride).build(REGIONS)
    assert stage.out == RegionSpec(channels=2048, size=size)
    assert stage(torch.zeros(3, 1024, 14, 14)).shape == (3, 2048, *size)


def test_an_odd_side_is_rounded_up():
    config = ResNetStageConfig(depth=18)
    assert config.region_spec(RegionSpec(channels=256, size=(7, 5))).size == (4, 3)


def test_the_trunk_keeps_its_contract():
    contract_checks.check_trunk(ResNetStageConfig(depth=18), RegionSpec(channels=256, size=(8, 8)))


def test_a_stage_takes_its_weights_from_a_whole_resnet(tmp_path):
    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    stage = ResNetStageConfig(depth=18, pretrained=str(tmp_path / "resnet18.pth")).build(
        RegionSpec(channels=256, size=(8, 8))
    )
    stage.load_initial_weights()
    assert torch.equal(stage.state_dict()["layer4.0.conv1.weight"], theirs.layer4[0].conv1.weight)
