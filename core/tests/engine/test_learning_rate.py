"""The learning rate as a function of the step, compared with torch's schedulers."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

from det_core.engine.learning_rate import learning_rate
from det_core.errors import ConfigError
from det_core.optim.learning_rate_config import (
    ConstantRateConfig,
    CosineRateConfig,
    OneCycleRateConfig,
    PolynomialRateConfig,
    StepRateConfig,
)
from det_core.optim.optimizer_config import SGDConfig
from det_core.recipe import ScheduleConfig
from det_core.specs import TrainingLength

EPOCHS, STEPS = 6, 5
LENGTH = TrainingLength(epochs=EPOCHS, steps_per_epoch=STEPS)


def test_it_is_scaled_to_the_total_batch_warmed_up_and_dropped_at_the_milestones():
    rate = learning_rate(SGDConfig(lr=0.02, lr_batch=16), ScheduleConfig(), total_batch=8, steps_per_epoch=1000)
    assert rate.effective == pytest.approx(0.01)
    assert rate.at(0) == pytest.approx(0.01 * 0.001)
    assert rate.at(250) == pytest.approx(0.01 * (0.001 + 0.999 * 250 / 499))
    assert rate.at(499) == rate.at(7999) == pytest.approx(0.01)
    assert rate.at(8000) == rate.at(10999) == pytest.approx(0.001)
    assert rate.at(11000) == pytest.approx(0.0001)


def test_no_scaling_and_no_warm_up():
    schedule = ScheduleConfig(warmup_steps=0, learning_rate=StepRateConfig(milestones=()))
    rate = learning_rate(SGDConfig(lr=0.5, lr_batch=0), schedule, total_batch=8, steps_per_epoch=3)
    assert [rate.at(s) for s in range(4)] == [0.5] * 4


def test_warm_up_multiplies_the_schedule():
    schedule = ScheduleConfig(epochs=4, warmup_steps=5, warmup_factor=0.2, learning_rate=CosineRateConfig())
    rate = learning_rate(SGDConfig(lr=1.0, lr_batch=0), schedule, total_batch=8, steps_per_epoch=2)
    plain = [CosineRateConfig().factor(step, rate.length) for step in range(8)]
    assert [rate.at(step) for step in range(8)] == pytest.approx(
        [plain[0] * 0.2, plain[1] * 0.4, plain[2] * 0.6, plain[3] * 0.8, *plain[4:]]
    )


def of_torch(make, by):
    """The factors of a scheduler of torch at each step of a run; it steps after each epoch, or after each step."""
    optimizer = optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no step of the optimiser is needed
        scheduler = make(optimizer)
        factors = []
        for step in range(EPOCHS * STEPS):
            factors.append(optimizer.param_groups[0]["lr"] / 2)
            if step + 1 < EPOCHS * STEPS and (by == "step" or (step + 1) % STEPS == 0):
                scheduler.step()
    return factors


OF_TORCH = {
    "step by epoch": (
        StepRateConfig(milestones=(2, 4), gamma=0.3),
        "epoch",
        lambda o: lr_scheduler.MultiStepLR(o, [2, 4], 0.3),
    ),
    "step by step": (
        StepRateConfig(milestones=(7, 8, 21), by="step"),
        "step",
        lambda o: lr_scheduler.MultiStepLR(o, [7, 8, 21], 0.1),
    ),
    "constant": (ConstantRateConfig(), "step", lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    "cosine by step": (CosineRateConfig(), "step", lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS * STEPS)),
    "cosine by epoch to a floor": (
        CosineRateConfig(floor=0.1, by="epoch"),
        "epoch",
        lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS, eta_min=0.2),
    ),
    "polynomial by step": (
        PolynomialRateConfig(power=0.7),
        "step",
        lambda o: lr_scheduler.PolynomialLR(o, EPOCHS * STEPS, 0.7),
    ),
    "polynomial by epoch": (
        PolynomialRateConfig(power=2, by="epoch"),
        "epoch",
        lambda o: lr_scheduler.PolynomialLR(o, EPOCHS, 2),
    ),
    "one cycle": (
        OneCycleRateConfig(),
        "step",
        lambda o: lr_scheduler.OneCycleLR(o, 2.0, EPOCHS * STEPS, cycle_momentum=False),
    ),
    "one cycle, linear": (
        OneCycleRateConfig(rising=0.45, start=0.1, floor=0.001, curve="linear"),
        "step",
        lambda o: lr_scheduler.OneCycleLR(
            o,
            2.0,
            EPOCHS * STEPS,
            pct_start=0.45,
            anneal_strategy="linear",
            cycle_momentum=False,
            div_factor=10,
            final_div_factor=100,
        ),
    ),
}


@pytest.mark.parametrize("name", OF_TORCH)
def test_schedules_equal_those_of_torch_step_for_step(name):
    config, by, make = OF_TORCH[name]
    ours = [config.factor(step, LENGTH) for step in range(LENGTH.steps)]
    assert ours == pytest.approx(of_torch(make, by), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("config", [CosineRateConfig(floor=0.2), PolynomialRateConfig(floor=0.2)])
def test_a_schedule_ends_at_its_floor(config):
    assert config.factor(LENGTH.steps, LENGTH) == pytest.approx(0.2)
    assert config.factor(LENGTH.steps + 9, LENGTH) == pytest.approx(0.2)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_one_cycle_of_a_few_steps_has_a_rate_at_each(epochs):
    length = TrainingLength(epochs=epochs, steps_per_epoch=1)
    factors = [OneCycleRateConfig().factor(step, length) for step in range(length.steps)]
    assert all(0 < factor <= 1 for factor in factors)


def test_a_schedule_that_warms_up_itself_refuses_another_warm_up():
    with pytest.raises(ConfigError, match=r"warmup_steps: found 500, but the learning rate 'one_cycle' begins with a"):
        ScheduleConfig(learning_rate=OneCycleRateConfig())
    assert ScheduleConfig(learning_rate=OneCycleRateConfig(), warmup_steps=0).learning_rate.warms_up
