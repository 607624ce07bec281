"""The VGG backbone: its maps, its layers and its initial weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attrs import evolve
from torch import nn
from torchvision.models import vgg16

from det_core.errors import WeightsError
from det_core.model.layer_config import GroupNormConfig
from det_core.testing import contract_checks
from det_plugin_ssd.backbone import VGG
from det_plugin_ssd.config import VGGConfig

SMALL = VGGConfig(channels=2)


@pytest.mark.parametrize(
    "config",
    [SMALL, evolve(SMALL, channels=4, norm=GroupNormConfig(groups=4)), evolve(SMALL, in_channels=2)],
    ids=["plain", "group norm", "2 channels"],
)
def test_the_contract_of_backbones(config: VGGConfig) -> None:
    contract_checks.check_backbone(config)


@pytest.mark.parametrize(("side", "sizes"), [(300, (38, 19)), (512, (64, 32)), (97, (13, 7))])
def test_sides_are_rounded_up(side: int, sizes: tuple[int, int]) -> None:
    maps = SMALL.build()(torch.zeros(1, 3, side, side))
    assert [tuple(x.shape) for x in maps] == [(1, c, s, s) for c, s in zip((16, 32), sizes, strict=True)]


def test_its_layers_up_to_conv5_3_are_torchvision_s() -> None:
    """Of one kind at one number, but for two: pools round up, and pool5 keeps the size; fc6 and fc7 come behind."""
    with torch.device("meta"):
        ours, theirs = VGGConfig().build().features, vgg16().features
    assert [type(a) for a in ours[:31]] == [type(b) for b in theirs]
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=False) if isinstance(a, nn.Conv2d)]
    assert len(pairs) == 13
    assert all(str(a) == str(b) for a, b in pairs)
    assert [str(layer) for layer in ours[30:]] == [
        "MaxPool2d(kernel_size=3, stride=1, padding=1, dilation=1, ceil_mode=False)",
        "Conv2d(512, 1024, kernel_size=(3, 3), stride=(1, 1), padding=(6, 6), dilation=(6, 6))",
        "ReLU(inplace=True)",
        "Conv2d(1024, 1024, kernel_size=(1, 1), stride=(1, 1))",
        "ReLU(inplace=True)",
    ]
    assert {layer.ceil_mode for layer in ours[:30] if isinstance(layer, nn.MaxPool2d)} == {True}


@pytest.mark.parametrize("norm", [None, GroupNormConfig(groups=2)])
def test_pooling_before_the_activation_changes_nothing(norm: GroupNormConfig | None) -> None:
    """Maps and gradients are those of the layers in the order in which they are numbered, also where all is below 0."""
    torch.manual_seed(0)
    backbone = evolve(SMALL, norm=norm).build().double()
    images = torch.randn(1, 3, 40, 56, dtype=torch.float64)
    images[..., :20] = -9
    found = backbone(images)
    x, wanted = images, []
    for number, layer in enumerate(backbone.features):
        x = layer(x)
        wanted += [x] if number in (22, 34) else []
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    weights = list(backbone.parameters())
    pairs = [torch.autograd.grad([m.square().sum() for m in maps], weights) for maps in (found, wanted)]
    assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))


def test_the_maps_are_those_behind_the_activations() -> None:
    torch.manual_seed(0)
    backbone = SMALL.build()
    with torch.no_grad():
        first, second = backbone(torch.randn(1, 3, 64, 64))
        assert torch.equal(second, backbone.features[23:](first))
    assert first.min() == 0
    assert second.min() == 0


@pytest.fixture
def initial(tmp_path: Path) -> Path:
    """The file of torchvision's `IMAGENET1K_FEATURES` in small: convolutions up to conv5_3, no classifier."""
    torch.manual_seed(1)
    state = {k: v for k, v in SMALL.build().state_dict().items() if int(k.split(".")[1]) < 30}
    state["classifier.0.weight"] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "vgg.pth")
    return tmp_path / "vgg.pth"


def test_fc6_and_fc7_begin_fresh(initial: Path) -> None:
    torch.manual_seed(2)
    backbone = evolve(SMALL, pretrained=str(initial)).build()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone.load_initial_weights()
    wanted = torch.load(initial, weights_only=True)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, wanted.get(name, before[name])), name
    assert not torch.equal(backbone.state_dict()["features.0.weight"], before["features.0.weight"])


def test_the_first_convolution_of_gray_images_is_the_sum_over_rgb(initial: Path) -> None:
    backbone = evolve(SMALL, in_channels=1, pretrained=str(initial)).build()
    backbone.load_initial_weights()
    wanted = torch.load(initial, weights_only=True)["features.0.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(backbone.state_dict()["features.0.weight"], wanted)


def test_without_initial_weights_nothing_is_read() -> None:
    SMALL.build().load_initial_weights()


def test_initial_weights_that_lack_a_convolution_are_refused(initial: Path) -> None:
    state = torch.load(initial, weights_only=True)
    del state["features.28.bias"]
    torch.save(state, initial)
    with pytest.raises(WeightsError, match=r"missing: features\.28\.bias"):
        evolve(SMALL, pretrained=str(initial)).build().load_initial_weights()


def test_it_has_vgg16_s_convolutions() -> None:
    with torch.device("meta"):
        backbone, theirs = VGGConfig().build(), vgg16()
    assert isinstance(backbone, VGG)
    fc6, fc7 = 512 * 1024 * 9 + 1024, 1024 * 1024 + 1024
    features = sum(p.numel() for p in theirs.features.parameters())
    assert sum(p.numel() for p in backbone.parameters()) == features + fc6 + fc7
