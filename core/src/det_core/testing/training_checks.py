"""Contract checks of what trains a detector: losses, optimisers, learning-rate schedules.

Letters: n elements (anchors or regions), K foreground classes.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn, optim

from det_core.contracts import Loss
from det_core.settings import evolve
from det_core.slots import LearningRateConfig, LossConfig, OptimizerConfig
from det_core.specs import TrainingLength
from det_core.structures import LossTerm
from det_core.testing.config_checks import check_config, equal, who
from det_core.testing.module_checks import check_finite

Compared = Literal["boxes", "deltas", "labels"]
COUNT = 6  # elements
CLASSES = 3
LENGTHS = (
    TrainingLength(epochs=12, steps_per_epoch=5),
    TrainingLength(epochs=1, steps_per_epoch=3),
    TrainingLength(epochs=1, steps_per_epoch=1),
)


# Losses


def check_loss(config: LossConfig, compares: Compared | None = None) -> None:
    """Check the values, term, weight, gradients and empty input of a loss.

    compares: what it is given; boxes: (n, 4) xyxy twice; deltas: (n, 4) twice; labels: (n, K + 1) logits and (n,) int64
    labels in 0..K. None: boxes if `decoded`, otherwise labels if it takes them, else deltas.
    """
    check_config(config)
    loss = config.build()
    equal(config, "`decoded` of the module", loss.decoded, config.decoded)
    predicted, target = _inputs(compares or _compared(config, loss))
    _check_elements(config, loss, predicted, target)
    _check_term(config, loss, predicted, target)
    _check_gradient(config, loss, predicted, target)
    if compares != "labels" and predicted.shape == target.shape:
        _check_gradient(config, loss, target, target)
    twice = evolve(config, weight=2 * config.weight).build()(predicted, target, 1.0).total
    once = loss(predicted, target, 1.0).total
    assert torch.allclose(twice, 2 * once), (
        f"{who(config)}: `weight` does not scale the loss: {once.item():g}, with twice the weight {twice.item():g}"
    )


def _compared(config: LossConfig, loss: Loss) -> Compared:
    if config.decoded:
        return "boxes"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shapes that do not fit
            loss.elementwise(*_inputs("labels"))
    except (RuntimeError, TypeError, ValueError, IndexError):
        return "deltas"  # what is wrong with a loss that takes neither is shown by the checks
    return "labels"


def _inputs(compares: Compared) -> tuple[Tensor, Tensor]:
    """Predictions and targets."""
    generator = torch.Generator().manual_seed(6)
    if compares == "labels":
        return torch.randn(COUNT, CLASSES + 1, generator=generator), torch.arange(COUNT) % (CLASSES + 1)
    values = torch.rand(2, COUNT, 4, generator=generator)
    if compares == "boxes":
        values = torch.cat([values[..., :2] * 20, values[..., :2] * 20 + 4 + values[..., 2:] * 30], -1)
    return values[0], values[1]


def _check_elements(config: LossConfig, loss: Loss, predicted: Tensor, target: Tensor) -> None:
    for count in (COUNT, 0):
        elements = loss.elementwise(predicted[:count], target[:count])
        found = tuple(elements.shape)
        assert found[:1] == (count,), (
            f"{who(config)}: elementwise() of {count} elements has shape {found}, expected ({count}, ...)"
        )
        check_finite(config, [elements], f"the losses of {count} elements")


def _check_term(config: LossConfig, loss: Loss, predicted: Tensor, target: Tensor) -> None:
    """Check that the term is the weighted sum in full precision, with the count that is given."""
    for count in (COUNT, 0):
        term = loss(predicted[:count], target[:count], 4.0)
        assert isinstance(term, LossTerm), f"{who(config)}: forward gives {type(term).__name__}, not LossTerm"
        equal(config, "shape of the total", tuple(term.total.shape), ())
        equal(config, "the term's count", term.count, 4.0)
        total = config.weight * loss.elementwise(predicted[:count], target[:count]).sum()
        assert torch.allclose(term.total, total, rtol=1e-4), (
            f"{who(config)}: the total of {count} elements is {term.total.item():g}, expected the weighted sum of "
            f"elementwise(), {total.item():g}"
        )
    half = loss(predicted.bfloat16(), target, 4.0).total
    equal(config, "type of the total of bfloat16 predictions", half.dtype, torch.float32)


def _check_gradient(config: LossConfig, loss: Loss, predicted: Tensor, target: Tensor) -> None:
    for count in (COUNT, 0):
        leaf = predicted[:count].clone().requires_grad_()
        total = loss(leaf, target[:count], 1.0).total
        assert total.requires_grad, f"{who(config)}: the loss of {count} elements has no gradient"
        (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True)
        assert gradient is not None, f"{who(config)}: the predictions of {count} elements get no gradient"
        check_finite(config, [gradient], "the gradient of the predictions")


# Optimisers


def check_optimizer(config: OptimizerConfig) -> None:
    """Check an optimiser with two groups of parameters.

    Each group keeps its own learning rate and weight decay, a rate of 0 changes nothing, steps depend only on
    parameters and gradients, and a saved state, loaded without running code, continues exactly.
    """
    check_config(config)
    model, optimizer = _built_optimizer(config)
    found = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    expected = [(group["lr"], group["weight_decay"]) for group in _groups(config, model)]
    equal(config, "learning rates and weight decays of the groups", found, expected)
    _check_steps(config)
    _check_weight_decay(config)
    _check_state(config)


def _groups(config: OptimizerConfig, model: nn.Module) -> list[dict[str, Any]]:
    first, second = model.parameters()
    return [
        {"params": [first], "lr": config.lr, "weight_decay": 0.1},
        {"params": [second], "lr": config.lr / 10, "weight_decay": 0.0, "lr_factor": 0.1},
    ]


def _built_optimizer(config: OptimizerConfig) -> tuple[nn.Linear, optim.Optimizer]:
    """A layer with a group for its weights and one for its bias, and the optimiser of both."""
    model = nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape))
    optimizer = config.build(_groups(config, model))
    assert isinstance(optimizer, optim.Optimizer), (
        f"{who(config)}: build() gives {type(optimizer).__name__}, not a torch.optim.Optimizer"
    )
    return model, optimizer


def _step(model: nn.Linear, optimizer: optim.Optimizer, number: int) -> None:
    optimizer.zero_grad(set_to_none=True)
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(number))
    model(inputs).square().sum().backward()
    optimizer.step()


def _values(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def _same(one: list[Tensor], two: list[Tensor]) -> list[bool]:
    return [torch.equal(a, b) for a, b in zip(one, two, strict=True)]


def _check_steps(config: OptimizerConfig) -> None:
    model, optimizer = _built_optimizer(config)
    before = _values(model)
    optimizer.step()  # without gradients, as of layers that a batch does not use
    equal(config, "that a step without gradients keeps the parameters", _same(before, _values(model)), [True, True])
    model, optimizer = _built_optimizer(config)
    for number in range(3):
        _step(model, optimizer, number)
    equal(config, "that steps keep the parameters", _same(before, _values(model)), [False, False])
    check_finite(config, _values(model), "the parameters after three steps")
    again, other = _built_optimizer(config)
    for number in range(3):
        _step(again, other, number)
    equal(config, "that equal steps give equal parameters", _same(_values(model), _values(again)), [True, True])
    before = _values(model)
    optimizer.param_groups[1]["lr"] = 0.0  # as a schedule sets it
    _step(model, optimizer, 3)
    equal(
        config,
        "that a step with a learning rate of 0 in the second group keeps the parameters",
        _same(before, _values(model)),
        [False, True],
    )


def _check_weight_decay(config: OptimizerConfig) -> None:
    model, optimizer = _built_optimizer(config)
    before = _values(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = _values(model)
    equal(
        config,
        "that a step with gradients of 0 keeps parameters with a weight decay of 0.1, and of 0",
        _same(before, after),
        [False, True],
    )
    assert bool(after[0].norm() < before[0].norm()), f"{who(config)}: weight decay makes the parameters larger"


def _check_state(config: OptimizerConfig) -> None:
    model, optimizer = _built_optimizer(config)
    for number in range(2):
        _step(model, optimizer, number)
    resumed, other = _built_optimizer(config)
    file = io.BytesIO()
    try:
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    except Exception as error:
        raise AssertionError(
            f"{who(config)}: its state cannot be saved and loaded without running code; keep tensors, numbers and "
            f"texts in it: {error}"
        ) from error
    other.load_state_dict(state)
    resumed.load_state_dict(model.state_dict())
    for one, optimiser in ((model, optimizer), (resumed, other)):
        _step(one, optimiser, 2)
    equal(config, "that a resumed run has the same parameters", _same(_values(model), _values(resumed)), [True, True])


# Learning rates


def check_learning_rate(config: LearningRateConfig) -> None:
    """Check that a schedule's factors are finite, not negative, not all 0, and depend on the step alone."""
    check_config(config)
    for length in LENGTHS:
        factors = {step: config.factor(step, length) for step in range(length.steps)}
        for step, factor in factors.items():
            assert isinstance(factor, (int, float)), (
                f"{who(config)}: the factor of step {step} is {type(factor).__name__}, expected a number"
            )
            assert math.isfinite(factor), f"{who(config)}: the factor of step {step} of {length} is {factor}"
            assert factor >= 0, f"{who(config)}: the factor of step {step} of {length} is {factor:g}, below 0"
        assert any(factors.values()), f"{who(config)}: all factors of {length} are 0, so that nothing trains"
        _check_pure(config, length, factors)


def _check_pure(config: LearningRateConfig, length: TrainingLength, factors: Mapping[int, float]) -> None:
    """Check the factors again, backwards: a resumed run asks for some of the steps only."""
    for step in reversed(range(length.steps)):
        again = config.factor(step, length)
        assert again == factors[step], (
            f"{who(config)}: the factor of step {step} is first {factors[step]:g}, then {again:g}; it must depend on "
            "the step and the length alone"
        )
