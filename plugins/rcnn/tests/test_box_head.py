"""The box head: its shapes in all forms, its beginning, and regions there are none of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from det_core.model.layer_config import BatchNormConfig, GroupNormConfig
from det_core.specs import RegionSpec
from det_core.testing import contract_checks
from det_core.weights.translate_names import translate
from det_plugin_rcnn.config import FCBoxHeadConfig

REGIONS = RegionSpec(channels=8, size=(5, 7))
NORM = GroupNormConfig(groups=4)
FORMS = {
    "two layers": FCBoxHeadConfig(fc_channels=16),
    "four convolutions and a layer": FCBoxHeadConfig(
        num_convs=4, conv_channels=8, num_fcs=1, fc_channels=16, norm=NORM
    ),
    "pooled": FCBoxHeadConfig(num_fcs=0),
    "one box": FCBoxHeadConfig(fc_channels=16, class_agnostic=True),
}


def regions(count: int) -> torch.Tensor:
    return torch.randn(count, 8, 5, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("config", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("count", [3, 0])
def test_background_comes_last_and_every_class_has_a_box_or_all_have_one(config, count):
    head = config.build(REGIONS, 6)
    outputs = head(regions(count))
    assert outputs.scores.shape == (count, 7)
    assert outputs.deltas.shape == (count, 4 if config.class_agnostic else 24)
    (outputs.scores.sum() + outputs.deltas.sum()).backward()
    assert all(p.grad is not None for p in head.parameters())


def test_the_layers_of_each_form():
    layers = {
        name: [
            (m.in_features, m.out_features) if isinstance(m, nn.Linear) else (m.in_channels, m.out_channels)
            for m in config.build(REGIONS, 6).modules()
            if isinstance(m, nn.Linear | nn.Conv2d)
        ]
        for name, config in FORMS.items()
    }
    assert layers["two layers"] == [(8 * 5 * 7, 16), (16, 16), (16, 7), (16, 24)]
    assert layers["four convolutions and a layer"] == [(8, 8)] * 4 + [(8 * 5 * 7, 16), (16, 7), (16, 24)]
    assert layers["pooled"] == [(8, 7), (8, 24)]
    assert layers["one box"] == [(8 * 5 * 7, 16), (16, 16), (16, 7), (16, 4)]


def test_what_it_computes():
    head = FORMS["two layers"].build(REGIONS, 6)
    x = regions(3)
    hidden = head.fcs[1](head.fcs[0](x.flatten(1)).relu()).relu()
    outputs = head(x)
    assert torch.equal(outputs.scores, head.scores(hidden))
    assert torch.equal(outputs.deltas, head.deltas(hidden))
    pooled = FORMS["pooled"].build(REGIONS, 6)
    assert torch.allclose(pooled(x).scores, pooled.scores(x.mean((2, 3))))


def test_a_norm_follows_every_convolution():
    head = FORMS["four convolutions and a layer"].build(REGIONS, 6)
    assert sum(isinstance(m, nn.GroupNorm) for m in head.modules()) == 4
    assert all(c.conv.bias is None and c.relu for c in head.convs)


def test_it_begins_small():
    torch.manual_seed(0)
    head = FCBoxHeadConfig(fc_channels=256).build(REGIONS, 80)
    assert head.scores.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert head.deltas.weight.std().item() == pytest.approx(0.001, rel=0.05)
    bound = (6 / (280 + 256)) ** 0.5
    assert head.fcs[0].weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert all((layer.bias == 0).all() for layer in (*head.fcs, head.scores, head.deltas))
    convs = FORMS["four convolutions and a layer"].build(REGIONS, 80).convs
    assert convs[0].conv.weight.std().item() == pytest.approx((2 / (8 * 9)) ** 0.5, rel=0.15)


def test_class_dependent_layers():
    assert FORMS["two layers"].build(REGIONS, 6).class_dependent() == ("scores", "deltas")
    assert FORMS["one box"].build(REGIONS, 6).class_dependent() == ("scores",)


@pytest.mark.parametrize("field", ["conv_channels", "fc_channels", "num_convs", "num_fcs"])
def test_settings_out_of_range_are_refused(field):
    with pytest.raises(ValueError, match=f"{field}: found -1, expected at least [01]"):
        FCBoxHeadConfig(**{field: -1})


@pytest.mark.parametrize("config", FORMS.values(), ids=FORMS)
def test_the_contract_of_a_box_head(config):
    contract_checks.check_box_head(config, RegionSpec(channels=8, size=(7, 7)))


def test_mmdets_names():
    names = {
        "convs.1.conv.weight": "shared_convs.1.conv.weight",
        "convs.3.norm.bias": "shared_convs.3.gn.bias",
        "fcs.1.weight": "shared_fcs.1.weight",
        "scores.weight": "fc_cls.weight",
        "deltas.bias": "fc_reg.bias",
    }
    config = FORMS["four convolutions and a layer"]
    assert {key: translate("mmdet", config, key) for key in names} == names
    batch_norm = FCBoxHeadConfig(num_convs=1, norm=BatchNormConfig())
    assert translate("mmdet", batch_norm, "convs.0.norm.weight") == "shared_convs.0.bn.weight"
