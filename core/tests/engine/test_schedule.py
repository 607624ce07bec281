"""The optimiser, and the learning rate as a function of the step."""

import pytest
import torch
from torch import nn, optim

from det_core.engine.schedule import build_optimizer, learning_rate
from det_core.errors import ConfigError
from det_core.model.fold_batch_norm import BatchNorm
from det_core.recipe import OptimizerConfig, ScheduleConfig


def test_it_is_scaled_to_the_total_batch_warmed_up_and_dropped_at_the_milestones():
    rate = learning_rate(OptimizerConfig(lr=0.02, lr_batch=16), ScheduleConfig(), total_batch=8, steps_per_epoch=1000)
    assert rate.effective == pytest.approx(0.01)
    assert rate.at(0) == pytest.approx(0.01 * 0.001)
    assert rate.at(250) == pytest.approx(0.01 * (0.001 + 0.999 * 250 / 499))
    assert rate.at(499) == rate.at(7999) == pytest.approx(0.01)
    assert rate.at(8000) == rate.at(10999) == pytest.approx(0.001)
    assert rate.at(11000) == pytest.approx(0.0001)


def test_no_scaling_and_no_warm_up():
    schedule = ScheduleConfig(warmup_steps=0, milestones=())
    rate = learning_rate(OptimizerConfig(lr=0.5, lr_batch=0), schedule, total_batch=8, steps_per_epoch=3)
    assert [rate.at(s) for s in range(4)] == [0.5] * 4


@pytest.mark.parametrize(("kind", "cls"), [("sgd", optim.SGD), ("adamw", optim.AdamW)])
def test_the_optimiser_has_all_parameters_that_train(kind, cls):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    made = build_optimizer(OptimizerConfig(kind=kind, weight_decay=0.25), model)
    assert isinstance(made, cls)
    assert made.param_groups[0]["weight_decay"] == 0.25
    assert {id(p) for p in made.param_groups[0]["params"]} == {id(p) for p in model[1].parameters()}


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_norms_may_have_a_weight_decay_of_their_own(kind):
    model = nn.Sequential(nn.Conv2d(2, 4, 1), BatchNorm(4), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1))
    model[1].bias.requires_grad_(False)
    made = build_optimizer(OptimizerConfig(kind=kind, weight_decay=0.25, norm_weight_decay=0.0), model)
    others, norms = made.param_groups
    assert (others["weight_decay"], norms["weight_decay"]) == (0.25, 0.0)
    assert others["params"] == [model[0].weight, model[0].bias, model[3].weight, model[3].bias]
    assert norms["params"] == [model[1].weight, model[2].weight, model[2].bias]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in made.param_groups:
        group["lr"] = 0.5
    before = {name: value.clone() for name, value in model.named_parameters()}
    made.step()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"0.weight", "0.bias", "3.weight", "3.bias"}
    with pytest.raises(ConfigError, match=r"norm_weight_decay: found -1, expected at least 0"):
        OptimizerConfig(norm_weight_decay=-1)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_layouts_of_weights_gradients_and_momenta_may_differ(kind):
    """As where a run goes on whose momenta were saved in another layout."""
    stepped = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = nn.Conv2d(4, 6, 3)
        made = build_optimizer(OptimizerConfig(kind=kind, lr=0.1, weight_decay=0.25), model)
        for step in range(3):
            if step == 2:
                model.weight.data = model.weight.data.contiguous(memory_format=layout)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape)
            made.step()
        stepped.append(model.weight.detach().clone())
    torch.testing.assert_close(stepped[1], stepped[0])
