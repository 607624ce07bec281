"""FPN: a pyramid summed by hand, torchvision's numbers, sizes that do not divide, and inputs that do not fit."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from det_core.errors import ConfigError
from det_core.model.layer_config import BatchNormConfig, GroupNormConfig
from det_core.specs import FeatureSpec
from det_core.testing import contract_checks
from det_core.weights.translate_names import translate
from det_plugin_fpn.config import FPNConfig
from det_plugin_fpn.neck import FPN

INPUTS = FeatureSpec(channels=(4, 6, 8, 10), strides=(4, 8, 16, 32))
SIZES = [(25, 34), (13, 17), (7, 9), (4, 5)]  # as strides 4 to 32 leave of 100 x 136


def maps(channels: tuple[int, ...] = INPUTS.channels, sizes: list[tuple[int, int]] = SIZES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(channels, sizes, strict=True)]


def shapes(found: list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(x.shape[1:]) for x in found]


def test_the_default_is_that_of_the_two_stage_detectors():
    spec = FPNConfig().feature_spec(FeatureSpec(channels=(256, 512, 1024, 2048), strides=(4, 8, 16, 32)))
    assert spec == FeatureSpec(channels=(256,) * 5, strides=(4, 8, 16, 32, 64))


@pytest.mark.parametrize(
    ("config", "strides"),
    [
        (FPNConfig(channels=8), (4, 8, 16, 32, 64)),
        (FPNConfig(channels=8, levels=4), (4, 8, 16, 32)),
        (FPNConfig(channels=8, levels=6), (4, 8, 16, 32, 64, 128)),
        (FPNConfig(channels=8, start=1, levels=5), (8, 16, 32, 64, 128)),
        (FPNConfig(channels=8, start=3, levels=1), (32,)),
    ],
)
def test_what_is_stated_is_what_comes_out_for_sizes_that_do_not_divide(config, strides):
    assert config.feature_spec(INPUTS) == FeatureSpec(channels=(8,) * len(strides), strides=strides)
    neck = config.build(INPUTS)
    assert neck.out == config.feature_spec(INPUTS)
    rounded_up = {4: (25, 34), 8: (13, 17), 16: (7, 9), 32: (4, 5), 64: (2, 3), 128: (1, 2)}
    assert shapes(neck(maps())) == [(8, *rounded_up[s]) for s in strides]


def identity(neck: FPN) -> FPN:
    """Laterals and outputs hand their input on (one channel, the middle of the 3x3)."""
    for module in neck.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
            middle = module.kernel_size[0] // 2
            module.weight.data[:, :, middle, middle] = 1.0
    return neck


def test_the_top_down_sum_by_hand():
    neck = identity(FPNConfig(channels=1, levels=4).build(FeatureSpec(channels=(1, 1, 1), strides=(4, 8, 16))))
    coarse = torch.tensor([[100.0, 200.0]])
    middle = torch.tensor([[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]])
    fine = torch.arange(20.0).view(4, 5)
    found = neck([x[None, None] for x in (fine, middle, coarse)])
    # 1 x 2 to 2 x 3: columns 0, 0, 1 of the coarse one. 2 x 3 to 4 x 5: rows 0 0 1 1, columns 0 0 1 1 2.
    summed = middle + torch.tensor([[100.0, 100.0, 200.0]] * 2)
    assert torch.equal(found[2][0, 0], coarse)
    assert torch.equal(found[1][0, 0], summed)
    assert torch.equal(found[0][0, 0], fine + summed[[0, 0, 1, 1]][:, [0, 0, 1, 1, 2]])
    assert found[3].tolist() == [[[[100.0]]]]  # every second pixel of the last


def test_inputs_of_one_stride_are_summed_pixel_by_pixel():
    """As the last two maps of MobileNetV3."""
    inputs = FeatureSpec(channels=(1, 1), strides=(32, 32))
    config = FPNConfig(channels=1, levels=3)
    assert config.feature_spec(inputs).strides == (32, 32, 64)
    neck = identity(config.build(inputs))
    first, second = torch.randn(1, 1, 3, 5), torch.randn(1, 1, 3, 5)
    found = neck([first, second])
    torch.testing.assert_close(found[0], first + second)
    torch.testing.assert_close(found[1], second)
    torch.testing.assert_close(found[2], second[:, :, ::2, ::2])


def test_extra_levels_take_every_second_pixel_of_the_one_before():
    found = FPNConfig(channels=8, levels=6).build(INPUTS)(maps())
    assert torch.equal(found[4], found[3][:, :, ::2, ::2])
    assert torch.equal(found[5], found[4][:, :, ::2, ::2])


def test_outputs_are_torchvisions():
    torch.manual_seed(0)
    theirs = FeaturePyramidNetwork(list(INPUTS.channels), 8, extra_blocks=LastLevelMaxPool())
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.3)
    ours = FPNConfig(channels=8).build(INPUTS)
    renamed = {
        key.replace("inner_blocks.", "lateral.").replace("layer_blocks.", "output.").replace(".0.", ".conv.", 1)
        if ".0.0." not in key
        else key.replace("inner_blocks.0.0.", "lateral.0.conv.").replace("layer_blocks.0.0.", "output.0.conv."): value
        for key, value in theirs.state_dict().items()
    }
    ours.load_state_dict(renamed)
    with torch.no_grad():
        expected = theirs(OrderedDict((str(i), x) for i, x in enumerate(maps())))
        found = ours(maps())
    assert list(expected) == ["0", "1", "2", "3", "pool"]
    for x, y in zip(found, expected.values(), strict=True):
        assert torch.allclose(x, y, atol=1e-5)
        assert x.std() > 0.1


def test_inputs_before_the_start_are_not_used():
    neck = FPNConfig(channels=8, start=1, levels=3).build(INPUTS)
    inputs = [x.requires_grad_() for x in maps()]
    sum(x.sum() for x in neck(inputs)).backward()
    assert [x.grad is not None for x in inputs] == [False, True, True, True]
    assert [c.conv.in_channels for c in neck.lateral] == [6, 8, 10]


def test_convolutions_have_a_bias_and_no_activation_without_a_norm():
    neck = FPNConfig(channels=8).build(INPUTS)
    assert [m for m in neck.modules() if isinstance(m, nn.ReLU | nn.GroupNorm | nn.BatchNorm2d)] == []
    assert all(m.bias is not None for m in neck.modules() if isinstance(m, nn.Conv2d))
    assert all(x.min() < 0 for x in neck(maps()))


def test_a_norm_follows_every_convolution():
    neck = FPNConfig(channels=8, norm=GroupNormConfig(groups=2)).build(INPUTS)
    assert sum(isinstance(m, nn.GroupNorm) for m in neck.modules()) == 8
    assert all(m.bias is None for m in neck.modules() if isinstance(m, nn.Conv2d))
    # With a fresh affine part the mean of every group is 0 and its variance 1.
    groups = neck(maps())[0].unflatten(1, (2, 4)).flatten(2)
    assert groups.mean(2).abs().max() < 1e-5
    assert groups.var(2).sub(1).abs().max() < 1e-2


def test_weights_are_xavier_uniform_and_biases_zero():
    torch.manual_seed(0)
    neck = FPNConfig(channels=64).build(FeatureSpec(channels=(64,), strides=(4,)))
    bound = (6 / (64 * 9 * 2)) ** 0.5
    weight = neck.output[0].conv.weight
    assert weight.abs().max().item() == pytest.approx(bound, rel=1e-2)
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert (neck.output[0].conv.bias == 0).all()


@pytest.mark.parametrize(
    ("config", "inputs", "message"),
    [
        (
            FPNConfig(levels=3),
            INPUTS,
            "levels: 3 output levels from 4 inputs (strides [4, 8, 16, 32]); give at least 4 levels, or a higher start",
        ),
        (
            FPNConfig(start=4),
            INPUTS,
            "start: 4 leaves no input level (strides [4, 8, 16, 32])",
        ),
        (
            FPNConfig(),
            FeatureSpec(channels=(4, 8), strides=(4, 16)),
            "requires inputs whose strides double or stay, found [4, 16]",
        ),
        (
            FPNConfig(),
            FeatureSpec(channels=(4, 8), strides=(8, 4)),
            "requires inputs whose strides double or stay, found [8, 4]",
        ),
    ],
)
def test_inputs_that_make_no_pyramid_are_refused(config, inputs, message):
    for call in (config.feature_spec, config.build):
        with pytest.raises(ConfigError) as caught:
            call(inputs)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, r"channels\S*: found .+, expected .*at least 1"),
        ({"levels": 0}, r"levels\S*: found .+, expected .*at least 1"),
        ({"start": -1}, r"start\S*: found .+, expected .*at least 0"),
        ({"extra": "convolution"}, r"extra\S*: found .+, allowed: "),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FPNConfig(**settings)


def test_as_many_maps_as_inputs_are_needed():
    with pytest.raises(ValueError, match="zip"):
        FPNConfig(channels=8).build(INPUTS)(maps()[:3])


@pytest.mark.parametrize(
    "config", [FPNConfig(channels=16), FPNConfig(channels=16, start=1, norm=GroupNormConfig(groups=4))]
)
def test_the_contract_of_a_neck(config):
    contract_checks.check_neck(config)


def test_the_public_names():
    import det_plugin_fpn

    assert det_plugin_fpn.FPN is FPN
    assert det_plugin_fpn.FPNConfig is FPNConfig
    with pytest.raises(AttributeError, match="module 'det_plugin_fpn' has no attribute 'PAFPN'"):
        _ = det_plugin_fpn.PAFPN


def test_mmdets_names():
    with_norm = FPNConfig(norm=GroupNormConfig())
    names = {
        (FPNConfig(), "lateral.0.conv.weight"): "lateral_convs.0.conv.weight",
        (FPNConfig(), "output.3.conv.bias"): "fpn_convs.3.conv.bias",
        (with_norm, "lateral.2.norm.weight"): "lateral_convs.2.gn.weight",
        (with_norm, "output.1.norm.bias"): "fpn_convs.1.gn.bias",
        (FPNConfig(norm=BatchNormConfig()), "output.1.norm.running_var"): "fpn_convs.1.bn.running_var",
    }
    assert {key: translate("mmdet", *key) for key in names} == names
