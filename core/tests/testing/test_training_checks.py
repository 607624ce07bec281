"""The contract checks of layers, losses, optimisers and learning rates: each way of breaking a contract is named."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn, optim

from det_core.contracts import Loss
from det_core.model.loss_config import CrossEntropyConfig
from det_core.settings import setting
from det_core.slots import ConvConfig, LearningRateConfig, LossConfig, NormConfig, OptimizerConfig
from det_core.specs import ConvSpec, TrainingLength
from det_core.structures import LossTerm
from det_core.testing import contract_checks
from det_core.testing.isolated_plugins import make_plugin, stub_config

pytestmark = pytest.mark.usefixtures("own_parts")


@stub_config
class SquareConfig(LossConfig):
    """A squared difference; `broken` names what is wrong with it."""

    type: ClassVar[str] = "square"

    broken: str = setting("what is broken", default="")

    def build(self) -> Loss:
        return Square(self)


class Square(Loss):
    def __init__(self, config: SquareConfig) -> None:
        super().__init__(1.0 if config.broken == "weight" else config.weight)
        self.broken, self.decoded = config.broken, config.broken == "decoded"

    def elementwise(self, predicted: Tensor, target: Tensor) -> Tensor:
        if predicted.shape != target.shape:
            raise ValueError("shapes differ")
        loss = (predicted - target).square()
        if self.broken == "mean":
            return loss.mean()
        if self.broken == "infinite":
            return loss / 0
        if self.broken == "root":
            return loss.sqrt()  # infinite slope at 0
        return loss

    def forward(self, predicted: Tensor, target: Tensor, count: Tensor | float) -> LossTerm:
        if self.broken == "number":
            return self.elementwise(predicted, target).sum()
        if self.broken == "half":
            return LossTerm(self.weight * self.elementwise(predicted, target.to(predicted.dtype)).sum(), count)
        if self.broken == "detached":
            predicted = predicted.detach()
        if self.broken == "unused" and len(predicted) == 0:
            return LossTerm(torch.zeros((), requires_grad=True) * 1, count)
        term = super().forward(predicted, target, count)
        if self.broken == "shape":
            return LossTerm(term.total[None], count)
        if self.broken == "count":
            return LossTerm(term.total, len(predicted))
        return LossTerm(term.total / 2, count) if self.broken == "half sum" else term


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("decoded", r"loss 'square': `decoded` of the module is True, expected False"),
        ("mean", r"elementwise\(\) of 6 elements has shape \(\), expected \(6, ...\)"),
        ("infinite", r"the losses of 6 elements: not finite"),
        ("number", r"forward gives Tensor, not LossTerm"),
        ("shape", r"shape of the total is \(1,\), expected \(\)"),
        ("count", r"the term's count is 6, expected 4.0"),
        ("half sum", r"the total of 6 elements is .*, expected the weighted sum of elementwise\(\), "),
        ("half", r"type of the total of bfloat16 predictions is torch.bfloat16, expected torch.float32"),
        ("detached", r"the loss of 6 elements has no gradient"),
        ("unused", r"the predictions of 0 elements get no gradient"),
        ("root", r"the gradient of the predictions: not finite"),
        ("weight", r"`weight` does not scale the loss: .*, with twice the weight "),
    ],
)
def test_broken_losses_are_found(broken, message):
    with pytest.raises(AssertionError, match=message):
        contract_checks.check_loss(SquareConfig(broken=broken))


def test_a_loss_is_checked_with_what_it_compares():
    contract_checks.check_loss(SquareConfig(weight=0.5))
    contract_checks.check_loss(CrossEntropyConfig())
    with pytest.raises(ValueError, match="shapes differ"):
        contract_checks.check_loss(SquareConfig(), compares="labels")


@stub_config
class DescentConfig(OptimizerConfig):
    """Gradient descent with decoupled weight decay; `broken` names what is wrong with it."""

    type: ClassVar[str] = "descent"

    broken: str = setting("what is broken", default="")

    def build(self, groups: list[dict[str, Any]]) -> optim.Optimizer:
        if self.broken == "list":
            return groups
        if self.broken == "one group":
            groups = [{**groups[0], "params": [p for g in groups for p in g["params"]]}]
        return Descent(groups, self)


class Descent(optim.Optimizer):
    drawn = 0.0

    def __init__(self, groups: list[dict[str, Any]], config: DescentConfig) -> None:
        super().__init__(groups, {"lr": config.lr, "weight_decay": 0.0})
        self.broken, self.rate, self.hidden = config.broken, config.lr, 0

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        self.hidden += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None or self.broken == "no gradient":
                    self.update(parameter, group)

    def update(self, p: Tensor, group: dict[str, Any]) -> None:
        rate, decay, state = group["lr"], group["weight_decay"], self.state[p]
        state["steps"] = state.get("steps", 0) + 1
        if self.broken == "idle":
            return
        if self.broken == "secret":
            state["secret"] = Fraction(1, 2)  # only pickle saves it
        if self.broken == "fixed rate":
            rate = self.rate
        if self.broken == "no decay":
            decay = 0
        if self.broken == "growth":
            decay = -decay
        if self.broken == "random":
            Descent.drawn += 1e-3
            rate *= 1 + Descent.drawn
        if self.broken == "infinite":
            rate *= math.inf
        if self.broken == "unsaved":
            rate /= self.hidden
        p.sub_(rate * decay * p)
        p.sub_(rate * (1.0 if p.grad is None else p.grad))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("list", r"optimizer 'descent': build\(\) gives list, not a torch.optim.Optimizer"),
        (
            "one group",
            r"learning rates and weight decays of the groups is \[\(0.02, 0.1\)\], expected \[\(0.02, 0.1\), ",
        ),
        (
            "no gradient",
            r"that a step without gradients keeps the parameters is \[False, False\], expected \[True, True\]",
        ),
        ("idle", r"that steps keep the parameters is \[True, True\], expected \[False, False\]"),
        ("infinite", r"the parameters after three steps: not finite"),
        ("random", r"that equal steps give equal parameters is \[False, False\]"),
        ("fixed rate", r"a learning rate of 0 in the second group keeps the parameters is \[False, False\]"),
        ("no decay", r"a weight decay of 0.1, and of 0 is \[True, True\], expected \[False, True\]"),
        ("growth", r"weight decay makes the parameters larger"),
        (
            "secret",
            r"its state cannot be saved and loaded without running code; keep tensors, numbers and texts in",
        ),
        ("unsaved", r"that a resumed run has the same parameters is \[False, False\]"),
    ],
)
def test_broken_optimisers_are_found(broken, message):
    with pytest.raises(AssertionError, match=message):
        contract_checks.check_optimizer(DescentConfig(broken=broken))


def test_a_good_optimiser_passes():
    contract_checks.check_component(DescentConfig())


@stub_config
class FallingConfig(LearningRateConfig):
    """A linear fall; `broken` names what is wrong with it."""

    type: ClassVar[str] = "falling"
    calls: ClassVar[list[int]] = []

    broken: str = setting("what is broken", default="")

    def factor(self, step: int, length: TrainingLength) -> float:
        FallingConfig.calls.append(step)
        last = length.steps - 1
        values = {
            "infinite": math.inf,
            "zero": 0.0,
            "below": -1.0,
            "tensor": torch.ones(()),
            "counting": float(len(FallingConfig.calls)),
        }
        return values[self.broken] if self.broken else 1 - step / (last + 1)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("infinite", r"learning_rate 'falling': the factor of step 0 of TrainingLength\(.*\) is inf"),
        ("below", r"the factor of step 0 of .* is -1, below 0"),
        ("zero", r"all factors of .* are 0, so that nothing trains"),
        ("tensor", r"the factor of step 0 is Tensor, expected a number"),
        ("counting", r"the factor of step 59 is first \d+, then \d+; it must depend on the step and the length alone"),
    ],
)
def test_broken_learning_rates_are_found(broken, message):
    with pytest.raises(AssertionError, match=message):
        contract_checks.check_learning_rate(FallingConfig(broken=broken))


def test_a_schedule_that_divides_by_zero_in_a_run_of_one_step_is_found(monkeypatch):
    monkeypatch.setattr(FallingConfig, "factor", lambda self, step, length: 1 - step / (length.steps - 1))
    with pytest.raises(ZeroDivisionError):
        contract_checks.check_learning_rate(FallingConfig())
    monkeypatch.undo()


def test_a_good_schedule_passes():
    contract_checks.check_component(FallingConfig())


@stub_config
class ScaleConfig(NormConfig):
    """A factor and a summand per channel; `broken` names what is wrong with it."""

    type: ClassVar[str] = "scale"

    broken: str = setting("what is broken", default="")

    def build(self, channels: int) -> nn.Module:
        return Scale(channels, self.broken)


class Scale(nn.Module):
    def __init__(self, channels: int, broken: str) -> None:
        super().__init__()
        self.broken = broken
        self.weight, self.bias = nn.Parameter(torch.ones(channels, 1, 1)), nn.Parameter(torch.zeros(channels, 1, 1))
        self.hidden = torch.rand(()) if broken == "unsaved" else 1.0

    def forward(self, x: Tensor) -> Tensor:
        if self.broken == "detached":
            x = x.detach()
        bias = self.bias.detach() if self.broken == "unused" else self.bias
        y = x * self.weight * self.hidden + bias
        return y.mean((2, 3)) if self.broken == "shape" else y


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("shape", r"norm 'scale': shape of the output is \(2, 64\), expected \(2, 64, 9, 7\)"),
        ("detached", r"that the input has a gradient is False, expected True"),
        ("unused", r"gives no gradient to bias"),
        ("unsaved", r"the outputs differ after saving and loading its weights"),
    ],
)
def test_broken_norms_are_found(broken, message):
    with pytest.raises(AssertionError, match=message):
        contract_checks.check_norm(ScaleConfig(broken=broken))


def test_a_norm_without_any_gradient_is_found(monkeypatch):
    monkeypatch.setattr(Scale, "forward", lambda self, x: x.detach())
    with pytest.raises(AssertionError, match="norm 'scale': that the output has a gradient is False, expected True"):
        contract_checks.check_norm(ScaleConfig())


@stub_config
class PlainConvConfig(ConvConfig):
    """torch's convolution; `broken` names what is wrong with it."""

    type: ClassVar[str] = "plain"

    broken: str = setting("what is broken", default="")

    def build(self, spec: ConvSpec) -> nn.Module:
        dilation = 1 if self.broken == "dilation" else spec.dilation
        stride = 1 if self.broken == "stride" else spec.stride
        sizes = (spec.in_channels, spec.out_channels, spec.kernel_size)
        return nn.Conv2d(*sizes, stride, spec.padding, dilation, spec.groups, spec.bias)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            "stride",
            r"conv 'plain': shape of the output of .* stride=2.* is \(2, 16, 9, 7\), expected \(2, 16, 5, 4\)",
        ),
        ("dilation", r"shape of the output of ConvSpec\(.* dilation=2.* is \(2, 16, 11, 9\), expected \(2, 16, 9, 7\)"),
    ],
)
def test_broken_convolutions_are_found(broken, message):
    with pytest.raises(AssertionError, match=message):
        contract_checks.check_conv(PlainConvConfig(broken=broken))


def test_good_layers_pass():
    contract_checks.check_component(ScaleConfig())
    contract_checks.check_component(PlainConvConfig())


PARTS = make_plugin(
    "parts",
    det_losses=lambda: [SquareConfig, CrossEntropyConfig],
    det_optimizers=lambda: [DescentConfig],
    det_schedules=lambda: [FallingConfig],
    det_layers=lambda: [ScaleConfig, PlainConvConfig],
)
