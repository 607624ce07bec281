"""The mask head: its shapes, its beginning, and regions there are none of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from det_core.model.layer_config import GroupNormConfig
from det_core.specs import RegionSpec
from det_core.testing import contract_checks
from det_core.weights.translate_names import translate
from det_plugin_rcnn.config import ConvMaskHeadConfig

REGIONS = RegionSpec(channels=6, size=(5, 7))
PLAIN = ConvMaskHeadConfig(num_convs=2, channels=8)
FORMS = {
    "plain": PLAIN,
    "with a norm": ConvMaskHeadConfig(num_convs=2, channels=8, norm=GroupNormConfig(groups=2)),
    "no convolution": ConvMaskHeadConfig(num_convs=0, channels=8),
    "one mask": ConvMaskHeadConfig(num_convs=1, channels=8, class_agnostic=True),
}


def regions(count: int) -> torch.Tensor:
    return torch.randn(count, 6, 5, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("config", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("count", [3, 0])
def test_masks_are_twice_the_regions_size_one_per_class_or_one(config, count):
    head = config.build(REGIONS, 4)
    assert head.size == (10, 14)
    found = head(regions(count))
    assert found.shape == (count, 1 if config.class_agnostic else 4, 10, 14)
    found.sum().backward()
    assert all(p.grad is not None for p in head.parameters())


def test_what_it_computes():
    head = PLAIN.build(REGIONS, 4)
    x = regions(3)
    hidden = head.convs[1].conv(head.convs[0].conv(x).relu()).relu()
    assert torch.equal(head(x), head.logits(head.upsample(hidden).relu()))


def test_the_layers():
    head = FORMS["no convolution"].build(REGIONS, 4)
    assert len(head.convs) == 0
    assert (head.upsample.in_channels, head.upsample.out_channels) == (6, 8)
    assert (head.upsample.kernel_size, head.upsample.stride) == ((2, 2), (2, 2))
    normed = FORMS["with a norm"].build(REGIONS, 4)
    assert sum(isinstance(m, nn.GroupNorm) for m in normed.modules()) == 2
    assert normed.upsample.bias is not None  # no norm on the upsampling


def test_it_begins_kaiming_by_the_fan_out():
    torch.manual_seed(0)
    head = ConvMaskHeadConfig(num_convs=1, channels=64).build(RegionSpec(channels=64, size=(14, 14)), 80)
    assert head.convs[0].conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert head.logits.weight.std().item() == pytest.approx((2 / 80) ** 0.5, rel=0.05)
    assert all((layer.bias == 0).all() for layer in (head.convs[0].conv, head.upsample, head.logits))


def test_class_dependent_layers():
    assert PLAIN.build(REGIONS, 4).class_dependent() == ("logits",)
    assert FORMS["one mask"].build(REGIONS, 4).class_dependent() == ()


@pytest.mark.parametrize("field", ["channels", "num_convs"])
def test_settings_out_of_range_are_refused(field):
    with pytest.raises(ValueError, match=f"{field}: found -1, expected at least [01]"):
        ConvMaskHeadConfig(**{field: -1})


@pytest.mark.parametrize("config", FORMS.values(), ids=FORMS)
def test_the_contract_of_a_mask_head(config):
    contract_checks.check_mask_head(config, RegionSpec(channels=6, size=(7, 7)))


def test_mmdets_names():
    names = {
        "convs.1.conv.weight": "convs.1.conv.weight",
        "convs.1.norm.bias": "convs.1.gn.bias",
        "upsample.weight": "upsample.weight",
        "logits.bias": "conv_logits.bias",
    }
    assert {key: translate("mmdet", FORMS["with a norm"], key) for key in names} == names
