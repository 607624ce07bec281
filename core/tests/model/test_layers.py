"""Norms, convolution with norm, initialisation, and regions of interest in one tensor."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from det_core.errors import ConfigError, DetError
from det_core.model.layer_config import BatchNormConfig, Conv2dConfig, FrozenBatchNormConfig, GroupNormConfig
from det_core.model.layers import ConvNorm, kaiming_init, normal_init, to_rois, tower, xavier_init
from det_core.specs import ConvSpec


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 8, 5, 6, generator=torch.Generator().manual_seed(seed)) * 3 + 2


def test_batch_norm_learns_its_statistics_in_training():
    norm = BatchNormConfig().build(8).train()
    norm(images())
    assert norm.num_batches_tracked == 1
    assert not torch.equal(norm.running_mean, torch.zeros(8))


def test_the_momentum_is_the_weight_of_a_batch():
    norm = BatchNormConfig(momentum=0.03).build(8).train()
    norm(images())
    assert torch.allclose(norm.running_mean, 0.03 * images().mean((0, 2, 3)))
    with pytest.raises(ValueError, match="momentum: found 1.5, expected"):
        BatchNormConfig(momentum=1.5)


def test_batch_norm_cannot_train_on_one_value():
    norm = BatchNormConfig().build(8).train()
    message = (
        r"batch norm cannot train on one value per channel: found an input of shape \(1, 8, 1, 1\); use more images "
        r"per process \(data.images_per_rank\), or the norm's frozen_statistics=true"
    )
    with pytest.raises(DetError, match=message):
        norm(torch.zeros(1, 8, 1, 1))
    assert norm(torch.zeros(2, 8, 1, 1)).shape == (2, 8, 1, 1)
    assert norm.eval()(torch.zeros(1, 8, 1, 1)).shape == (1, 8, 1, 1)


@pytest.mark.parametrize("config", [BatchNormConfig(frozen_statistics=True), FrozenBatchNormConfig()])
def test_frozen_statistics_are_kept_and_used_in_training(config):
    parent = nn.Sequential(config.build(8)).train()
    norm = parent[0]
    norm.running_mean.fill_(1.0)
    norm.running_var.fill_(4.0)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    found = parent(images())
    assert torch.allclose(found, (images() - 1) / math.sqrt(4 + 1e-5))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert parent.training
    assert not norm.training


def test_with_frozen_statistics_the_affine_part_still_trains():
    norm = BatchNormConfig(frozen_statistics=True).build(8).train()
    norm(images()).sum().backward()
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None


def test_frozen_batch_norm_trains_nothing_and_hands_gradients_on():
    norm = FrozenBatchNormConfig().build(8).train()
    assert not any(p.requires_grad for p in norm.parameters())
    x = images().requires_grad_()
    norm(x).sum().backward()
    assert (x.grad != 0).all()


@pytest.mark.parametrize(
    "config", [BatchNormConfig(eps=1e-3), FrozenBatchNormConfig(eps=1e-3), GroupNormConfig(groups=4, eps=1e-3)]
)
def test_eps_reaches_the_layer(config):
    assert config.build(8).eps == 1e-3


def test_norms_in_eval_are_torchs():
    norm, theirs = BatchNormConfig().build(8).eval(), nn.BatchNorm2d(8).eval()
    assert torch.equal(norm(images()), theirs(images()))
    assert norm.state_dict().keys() == theirs.state_dict().keys()


def test_group_norm_is_torchs():
    assert torch.equal(GroupNormConfig(groups=4).build(8)(images()), nn.GroupNorm(4, 8)(images()))


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ConfigError) as caught:
        GroupNormConfig(groups=32).build(48)
    assert str(caught.value) == "groups: 32 groups do not divide 48 channels; choose a divisor of 48"


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (BatchNormConfig, {"eps": 0.0}, r"eps\S*: found .+, expected .*above 0"),
        (FrozenBatchNormConfig, {"eps": -1.0}, r"eps\S*: found .+, expected .*at least 0"),
        (GroupNormConfig, {"groups": 0}, r"groups\S*: found .+, expected .*at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(config, settings, message):
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_every_argument_of_a_convolution_reaches_torch():
    conv = Conv2dConfig().build(ConvSpec(4, 8, 3, stride=2, padding=2, dilation=2, groups=4, bias=False))
    assert isinstance(conv, nn.Conv2d)
    assert (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride) == (4, 8, (3, 3), (2, 2))
    assert (conv.padding, conv.dilation, conv.groups, conv.bias) == ((2, 2), (2, 2), 4, None)
    assert Conv2dConfig().build(ConvSpec(4, 8, 3)).bias is not None


def test_a_convolution_has_a_bias_unless_a_norm_follows():
    assert ConvNorm(8, 4, 1, conv=Conv2dConfig()).conv.bias is not None
    assert ConvNorm(8, 4, 1, conv=Conv2dConfig(), norm=GroupNormConfig(groups=2)).conv.bias is None


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("norm", [None, GroupNormConfig(groups=2)])
def test_convolution_then_norm_then_relu(norm, relu):
    layer = ConvNorm(8, 4, 3, conv=Conv2dConfig(), norm=norm, stride=2, padding=1, relu=relu)
    expected = layer.conv(images())
    expected = expected if layer.norm is None else layer.norm(expected)
    expected = expected.relu() if relu else expected
    found = layer(images())
    assert found.shape == (4, 4, 3, 3)
    assert torch.equal(found, expected)
    assert (found.min() < 0) != relu


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_tower_of_convolutions(count):
    layers = tower(8, 6, count, conv=Conv2dConfig(), norm=GroupNormConfig(groups=2))
    assert [layer.conv.in_channels for layer in layers] == [8, 6, 6][:count]
    out = layers(images())
    assert out.shape == (4, 6 if count else 8, 5, 6)
    assert count == 0 or out.min() == 0


def test_normal_init():
    layer = nn.Linear(200, 200)
    normal_init(layer, 0.01, bias=-4.5)
    assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert layer.weight.mean().item() == pytest.approx(0, abs=1e-3)
    assert (layer.bias == -4.5).all()


def test_xavier_init_is_uniform_within_its_bound():
    layer = nn.Conv2d(16, 32, 3)
    xavier_init(layer)
    bound = math.sqrt(6 / (16 * 9 + 32 * 9))
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert layer.weight.abs().max() <= bound
    assert (layer.bias == 0).all()


def test_kaiming_init_is_normal_by_the_fan_out():
    layer = nn.Conv2d(64, 32, 3)
    kaiming_init(layer)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (32 * 9)), rel=0.05)
    assert (layer.bias == 0).all()


@pytest.mark.parametrize("init", [lambda m: normal_init(m, 0.1), xavier_init, kaiming_init])
def test_initialisation_takes_layers_without_a_bias(init):
    layer = nn.Conv2d(4, 4, 3, bias=False)
    before = layer.weight.clone()
    init(layer)
    assert not torch.equal(layer.weight, before)


def test_rois_carry_the_index_of_their_image():
    boxes = [
        torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
        torch.zeros(0, 4),
        torch.tensor([[5.0, 6.0, 7.0, 8.0], [0.0, 0.0, 9.0, 9.0]]),
    ]
    assert to_rois(boxes).tolist() == [[0, 1, 2, 3, 4], [2, 5, 6, 7, 8], [2, 0, 0, 9, 9]]
    assert to_rois([torch.zeros(0, 4), torch.zeros(0, 4)]).shape == (0, 5)
    assert to_rois([b.double() for b in boxes]).dtype == torch.float64
