"""Parameter groups: weight decay of norms and biases, rules by name, layer-wise decay, freezing."""

from __future__ import annotations

import pytest
import torch
from torch import nn, optim

from det_core.contracts import Backbone
from det_core.engine.parameter_groups import (
    build_optimizer,
    describe,
    freeze,
    parameter_groups,
    set_learning_rate,
    treatments,
)
from det_core.errors import ConfigError
from det_core.model.fold_batch_norm import BatchNorm
from det_core.optim.optimizer_config import AdamWConfig, SGDConfig
from det_core.specs import ParameterRule

CONFIGS = {"sgd": SGDConfig, "adamw": AdamWConfig}


@pytest.mark.parametrize(("kind", "cls"), [("sgd", optim.SGD), ("adamw", optim.AdamW)])
def test_the_optimiser_has_all_parameters_that_train(kind, cls):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    made = build_optimizer(CONFIGS[kind](weight_decay=0.25), model)
    assert isinstance(made, cls)
    assert made.param_groups[0]["weight_decay"] == 0.25
    assert {id(p) for p in made.param_groups[0]["params"]} == {id(p) for p in model[1].parameters()}


def test_settings_reach_torch():
    model = nn.Linear(2, 2)
    group = build_optimizer(SGDConfig(lr=0.5, momentum=0.7, nesterov=True), model).param_groups[0]
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.5, 0.7, True)
    group = build_optimizer(AdamWConfig(lr=0.5, betas=(0.8, 0.9), eps=1e-3), model).param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.5, (0.8, 0.9), 1e-3, 0.05)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="nesterov: true requires a momentum above 0"):
        SGDConfig(momentum=0, nesterov=True)
    with pytest.raises(ConfigError, match=r"betas: found \(0.9, 1.0\): both must be below 1"):
        AdamWConfig(betas=(0.9, 1.0))
    with pytest.raises(ConfigError, match=r"norm_weight_decay: found -1, expected at least 0"):
        SGDConfig(norm_weight_decay=-1)
    with pytest.raises(ConfigError, match=r"layer_decay: found 1.5, expected above 0 and at most 1"):
        SGDConfig(layer_decay=1.5)
    with pytest.raises(ConfigError, match=r"lr_factor: found 0, expected above 0"):
        ParameterRule(pattern="x", lr_factor=0)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_norms_may_have_a_weight_decay_of_their_own(kind):
    model = nn.Sequential(nn.Conv2d(2, 4, 1), BatchNorm(4), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1))
    model[1].bias.requires_grad_(False)
    made = build_optimizer(CONFIGS[kind](weight_decay=0.25, norm_weight_decay=0.0), model)
    others, norms = made.param_groups
    assert (others["weight_decay"], norms["weight_decay"]) == (0.25, 0.0)
    assert others["params"] == [model[0].weight, model[0].bias, model[3].weight, model[3].bias]
    assert norms["params"] == [model[1].weight, model[2].weight, model[2].bias]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    set_learning_rate(made, 0.5)
    before = {name: value.clone() for name, value in model.named_parameters()}
    made.step()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"0.weight", "0.bias", "3.weight", "3.bias"}


def test_biases_may_have_a_weight_decay_of_their_own():
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.GroupNorm(2, 4))
    weights, biases, norms = parameter_groups(
        SGDConfig(weight_decay=0.25, bias_weight_decay=0.0, norm_weight_decay=0.5), model
    )
    assert (weights["weight_decay"], biases["weight_decay"], norms["weight_decay"]) == (0.25, 0.0, 0.5)
    assert weights["params"] == [model[0].weight]
    assert biases["params"] == [model[0].bias]  # not that of the norm
    assert norms["params"] == list(model[1].parameters())


def test_rules_that_match_a_parameter_are_applied_in_turn():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    rules = (
        ParameterRule(pattern="a.*", lr_factor=0.5, weight_decay=0.1),
        ParameterRule(pattern="*.bias", lr_factor=2.0, weight_decay=0.0),
    )
    made = build_optimizer(SGDConfig(lr=1.0, weight_decay=0.25, rules=rules), model)
    set_learning_rate(made, 0.01)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in made.param_groups for p in group["params"]}
    assert found[id(model["a"].weight)] == (0.005, 0.1)
    assert found[id(model["a"].bias)] == (0.01, 0.0)
    assert found[id(model["b"].weight)] == (0.01, 0.25)
    assert found[id(model["b"].bias)] == (0.02, 0.0)
    lines = describe(made.param_groups)
    assert lines[0] == "0.00 M parameters: learning rate x 0.5, weight decay 0.1"
    assert len(lines) == 4
    assert describe(build_optimizer(SGDConfig(), model).param_groups) == []


def test_a_rule_that_matches_nothing_is_refused_with_the_nearest_name():
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2)})
    config = SGDConfig(rules=(ParameterRule(pattern="backbon.*", frozen=True),))
    with pytest.raises(ConfigError) as error:
        build_optimizer(config, model)
    expected = "optimizer.rules[0].pattern: no parameter has a name like 'backbon.*'; did you mean \"backbone.*\"?"
    assert str(error.value) == expected
    with pytest.raises(ConfigError, match=r"like 'zzz'; parameters: backbone.weight, backbone.bias"):
        freeze(SGDConfig(rules=(ParameterRule(pattern="zzz"),)), model)


def test_a_frozen_part_keeps_weights_and_statistics():
    model = nn.ModuleDict(
        {"a": nn.Sequential(nn.Conv2d(2, 2, 1), BatchNorm(2)), "b": nn.Sequential(nn.Conv2d(2, 2, 1), BatchNorm(2))}
    )
    config = SGDConfig(
        rules=(ParameterRule(pattern="a.*", frozen=True), ParameterRule(pattern="b.1.bias", frozen=True))
    )
    assert freeze(config, model) == (model["a"][1],)  # of the other norm, the weight trains
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"a.0.weight", "a.0.bias", "a.1.weight", "a.1.bias", "b.1.bias"}
    made = build_optimizer(config, model)
    assert [id(p) for g in made.param_groups for p in g["params"]] == [
        id(p) for p in model.parameters() if p.requires_grad
    ]


def test_if_all_is_frozen_nothing_trains():
    config = SGDConfig(rules=(ParameterRule(pattern="*", frozen=True),))
    with pytest.raises(ConfigError, match="optimizer.rules: they freeze all parameters, so there is nothing to train"):
        build_optimizer(config, nn.Linear(2, 2))


class Tower(Backbone):
    """Three layers, of which the first has two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 2, 1), BatchNorm(2)
        self.blocks = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))

    def layers(self):
        return [("conv", "norm"), ("blocks.0",), ("blocks.1",)]

    def forward(self, images):
        return [self.blocks(self.norm(self.conv(images)))]


class Whole(nn.Module):
    def __init__(self, backbone) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Conv2d(2, 1, 1)


def test_the_learning_rate_decays_from_layer_to_layer_of_the_backbone():
    model = Whole(Tower())
    made = build_optimizer(AdamWConfig(layer_decay=0.5, norm_weight_decay=0.0), model)
    set_learning_rate(made, 1.0)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in made.param_groups for p in group["params"]}
    named = {name: found[id(p)] for name, p in model.named_parameters()}
    assert named["head.weight"] == (1.0, 0.05)
    assert named["backbone.blocks.1.weight"] == (0.5, 0.05)
    assert named["backbone.blocks.0.bias"] == (0.25, 0.05)
    assert named["backbone.conv.weight"] == (0.125, 0.05)
    assert named["backbone.norm.weight"] == (0.125, 0.0)


def test_parameters_of_the_backbone_itself_are_named_in_its_layers():
    class WithToken(Tower):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.tokens = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))

        def layers(self):
            return [("conv", "norm", "token"), ("blocks", "tokens")]

    how = treatments(AdamWConfig(layer_decay=0.5), Whole(WithToken()))
    assert how["backbone.token"].lr_factor == 0.25
    assert how["backbone.tokens"].lr_factor == 0.5
    assert how["backbone.blocks.1.weight"].lr_factor == 0.5


def test_a_backbone_without_layers_is_refused():
    class Plain(Tower):
        def layers(self):
            return ()

    with pytest.raises(ConfigError) as error:
        build_optimizer(SGDConfig(layer_decay=0.5), Whole(Plain()))
    assert str(error.value).startswith("optimizer.layer_decay: Plain does not say what its layers are")


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_layouts_of_weights_gradients_and_momenta_may_differ(kind):
    """As where a run goes on whose momenta were saved in another layout."""
    stepped = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = nn.Conv2d(4, 6, 3)
        made = build_optimizer(CONFIGS[kind](lr=0.1, weight_decay=0.25), model)
        for step in range(3):
            if step == 2:
                model.weight.data = model.weight.data.contiguous(memory_format=layout)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape)
            made.step()
        stepped.append(model.weight.detach().clone())
    torch.testing.assert_close(stepped[1], stepped[0])
