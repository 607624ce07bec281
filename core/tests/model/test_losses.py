"""Every loss against its closed form, and against torchvision where it has the loss; ignored rows, nothing, halves."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from det_core.boxes.box_config import DeltaCoderConfig
from det_core.contracts import Loss
from det_core.errors import ConfigError
from det_core.model.loss_config import (
    BinaryCrossEntropyConfig,
    BoundedIoUConfig,
    CrossEntropyConfig,
    FocalConfig,
    GIoUConfig,
    L1Config,
    SmoothL1Config,
)
from det_core.model.losses import box_loss
from det_core.slots import LossConfig
from det_core.structures import LossTerm, full_precision

LN2 = math.log(2)
BOX_LOSSES = [L1Config(), SmoothL1Config(), BoundedIoUConfig(), GIoUConfig()]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_boxes(count: int, seed: int = 0) -> Tensor:
    corner = random(count, 2, seed=seed) * 5
    return torch.cat([corner, corner + 1 + random(count, 2, seed=seed + 100).abs() * 10], 1)


def inputs(config: LossConfig, count: int) -> tuple[Tensor, Tensor]:
    """Predictions and targets of `count` elements as this loss takes them, with 3 classes where it has any."""
    if isinstance(config, CrossEntropyConfig | FocalConfig):
        width = 4 if isinstance(config, CrossEntropyConfig) else 3
        return random(count, width), torch.arange(count) % 4
    if isinstance(config, BinaryCrossEntropyConfig):
        return random(count), torch.arange(count) % 2
    if config.decoded:
        return random_boxes(count), random_boxes(count, seed=1)
    return random(count, 4), random(count, 4, seed=1)


def value(config: LossConfig, predicted: Tensor, target: Tensor) -> float:
    return config.build()(predicted, target, 1).total.item()


EVERY_LOSS = pytest.mark.parametrize(
    "config", [CrossEntropyConfig(), BinaryCrossEntropyConfig(), FocalConfig(), *BOX_LOSSES], ids=lambda c: c.type
)


def test_cross_entropy_of_equal_logits_is_the_log_of_the_number_of_classes_and_background():
    assert value(CrossEntropyConfig(), torch.zeros(2, 81), torch.tensor([3, 80])) == pytest.approx(2 * math.log(81))


def test_cross_entropy_by_hand():
    predicted = torch.tensor([[1.0, 2.0, 0.0]])
    expected = math.log(math.e + math.e**2 + 1) - 2
    assert value(CrossEntropyConfig(), predicted, torch.tensor([1])) == pytest.approx(expected)


def test_binary_cross_entropy_by_hand():
    predicted = torch.tensor([0.0, 2.0, -1.0])
    expected = LN2 + math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))
    assert value(BinaryCrossEntropyConfig(), predicted, torch.tensor([1, 1, 0])) == pytest.approx(expected)


def test_binary_cross_entropy_takes_targets_between_0_and_1_of_any_shape():
    predicted, target = torch.zeros(2, 3, 3), torch.full((2, 3, 3), 0.25)
    assert value(BinaryCrossEntropyConfig(), predicted, target) == pytest.approx(18 * LN2)


def test_focal_by_hand():
    # p = 0.5 everywhere: the object 0.25 * 0.25 * ln 2, the other class 0.75 * 0.25 * ln 2.
    assert value(FocalConfig(), torch.zeros(1, 2), torch.tensor([0])) == pytest.approx(0.25 * LN2)
    # p = 0.75: an object counts 0.25 * 0.0625 * -ln 0.75, background 0.75 * 0.5625 * -ln 0.25.
    logit = torch.tensor([[math.log(3)]])
    assert value(FocalConfig(), logit, torch.tensor([0])) == pytest.approx(0.25 * 0.0625 * -math.log(0.75))
    assert value(FocalConfig(), logit, torch.tensor([1])) == pytest.approx(0.75 * 0.5625 * -math.log(0.25))


def test_focal_of_gamma_0_is_a_weighted_cross_entropy():
    config = FocalConfig(gamma=0.0, alpha=0.5)
    assert value(config, torch.zeros(1, 3), torch.tensor([1])) == pytest.approx(1.5 * LN2)


@given(st.floats(0, 5), st.floats(0.01, 0.99), st.integers(0, 1000))
def test_focal_is_torchvisions(gamma, alpha, seed):
    predicted, labels = random(6, 3, seed=seed) * 4, torch.tensor([0, 1, 2, 3, 3, 1])
    one_hot = torch.nn.functional.one_hot(labels, 4)[:, :3].float()
    expected = sigmoid_focal_loss(predicted, one_hot, alpha=alpha, gamma=gamma, reduction="none")
    found = FocalConfig(gamma=gamma, alpha=alpha).build().elementwise(predicted, labels)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_focal_ignores_negative_labels_with_a_gradient_of_zero():
    predicted = random(3, 2).requires_grad_()
    term = FocalConfig().build()(predicted, torch.tensor([1, -1, -2]), 1)
    term.total.backward()
    alone = value(FocalConfig(), predicted.detach()[:1], torch.tensor([1]))
    assert term.total.item() == pytest.approx(alone)
    assert (predicted.grad[0] != 0).all()
    assert (predicted.grad[1:] == 0).all()


def test_focal_stays_exact_where_a_probability_saturates():
    predicted = torch.tensor([[-200.0]], requires_grad=True)
    term = FocalConfig().build()(predicted, torch.tensor([0]), 1)
    term.total.backward()
    assert term.total.item() == pytest.approx(0.25 * 200)
    assert predicted.grad.item() == pytest.approx(-0.25)


def test_l1_by_hand():
    assert value(L1Config(), torch.tensor([[1.0, -2.0, 0.5, 0.0]]), torch.zeros(1, 4)) == 3.5


def test_smooth_l1_by_hand():
    difference, nothing = torch.tensor([[0.25, -0.5, 2.0, -1.0]]), torch.zeros(1, 4)
    # Below beta x^2 / (2 beta), from beta on |x| - beta / 2.
    assert value(SmoothL1Config(), difference, nothing) == pytest.approx(0.03125 + 0.125 + 1.5 + 0.5)
    assert value(SmoothL1Config(beta=0.5), difference, nothing) == pytest.approx(0.0625 + 0.25 + 1.75 + 0.75)


def test_giou_by_hand():
    predicted = torch.tensor([[0.0, 0.0, 4.0, 2.0], [0.0, 0.0, 1.0, 1.0]])
    target = torch.tensor([[2.0, 1.0, 6.0, 3.0], [3.0, 0.0, 4.0, 1.0]])
    assert value(GIoUConfig(), predicted, target) == pytest.approx((1 - 2 / 14 + 4 / 18) + 1.5)


@given(st.integers(0, 1000))
def test_giou_is_torchvisions(seed):
    predicted, target = random_boxes(5, seed), random_boxes(5, seed + 5000)
    found = GIoUConfig().build().elementwise(predicted, target)
    assert torch.allclose(found, generalized_box_iou_loss(predicted, target), atol=1e-5)


def test_bounded_iou_by_hand():
    predicted, target = torch.tensor([[1.0, 2.0, 5.0, 12.0]]), torch.tensor([[0.0, 0.0, 8.0, 10.0]])
    # Centres (3, 7) and (4, 5), sizes (4, 10) and (8, 10): bounds 1 - 6/10, 1 - 6/14, 1 - 4/8, 1 - 1; from .2 on - .1.
    config = BoundedIoUConfig(eps=1e-9)
    assert value(config, predicted, target) == pytest.approx((0.4 - 0.1) + (8 / 14 - 0.1) + (0.5 - 0.1) + 0)


def test_bounded_iou_is_quadratic_below_beta_and_bounded_far_away():
    target = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    near = torch.tensor([[0.0, 0.0, 9.0, 10.0]])  # centre off by .5: 1 - 9/11 = .1818; width 1 - .9 = .1
    config = BoundedIoUConfig(eps=1e-9)
    assert value(config, near, target) == pytest.approx(0.5 * (2 / 11) ** 2 / 0.2 + 0.5 * 0.1**2 / 0.2, rel=1e-4)
    far = target + 1000
    assert value(config, far, target) == pytest.approx(2 * (1 - 0.1))


def test_bounded_iou_of_boxes_without_area_is_finite():
    flat = torch.zeros(1, 4, requires_grad=True)
    term = BoundedIoUConfig().build()(flat, torch.zeros(1, 4), 1)
    term.total.backward()
    assert term.total.isfinite()
    assert flat.grad.isfinite().all()


@EVERY_LOSS
def test_of_no_elements_a_loss_is_zero_with_a_gradient_path(config):
    predicted, target = inputs(config, 0)
    predicted.requires_grad_()
    term = config.build()(predicted, target, 0.0)
    assert term.value().item() == 0.0
    term.value().backward()
    assert predicted.grad.shape == predicted.shape


@EVERY_LOSS
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(config, half):
    predicted, target = inputs(config, 7)
    rounded = predicted.to(half)
    found = config.build()(rounded, target, 1).total
    assert found.dtype == torch.float32
    assert torch.equal(found, config.build()(rounded.float(), target, 1).total)


@EVERY_LOSS
def test_float64_stays_float64(config):
    predicted, target = inputs(config, 7)
    target = target.double() if target.is_floating_point() else target
    assert config.build()(predicted.double(), target, 1).total.dtype == torch.float64


@EVERY_LOSS
def test_the_weight_scales_the_sum_and_not_the_count(config):
    predicted, target = inputs(config, 7)
    once, twice = config.build(), type(config)(weight=2.5).build()
    first, second = once(predicted, target, 3.0), twice(predicted, target, 3.0)
    assert second.total.item() == pytest.approx(2.5 * first.total.item())
    assert first.count == second.count == 3.0
    assert first.total.item() == pytest.approx(once.elementwise(predicted, target).sum().item())


@EVERY_LOSS
def test_gradients_agree_with_finite_differences(config):
    predicted, target = inputs(config, 5)
    target = target.double() if target.is_floating_point() else target
    loss = config.build()
    assert torch.autograd.gradcheck(lambda x: loss.elementwise(x, target), predicted.double().requires_grad_())


@EVERY_LOSS
def test_the_module_and_its_configuration_agree_on_what_is_compared(config):
    assert config.build().decoded is config.decoded


def test_a_count_of_0_leaves_the_total_undivided():
    total = torch.tensor(6.0)
    assert LossTerm(total, 0).value().item() == 6.0
    assert LossTerm(total, 0.0).value().item() == 6.0
    assert LossTerm(total, torch.tensor(0.0)).value().item() == 6.0


@pytest.mark.parametrize("count", [4, 4.0, torch.tensor(4.0), torch.tensor(4)])
def test_the_value_is_the_total_by_the_count(count):
    assert LossTerm(torch.tensor(6.0), count).value().item() == 1.5


@pytest.mark.parametrize("config", BOX_LOSSES, ids=lambda c: c.type)
def test_a_perfect_box_costs_nothing_in_deltas_and_in_boxes(config):
    coder = DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2)).build()
    anchors, boxes = random_boxes(5), random_boxes(5, seed=9)
    deltas = coder.encode(anchors, boxes)
    term = box_loss(config.build(), coder, anchors, deltas, boxes, 5.0)
    assert term.value().item() == pytest.approx(0.0, abs=1e-3)
    worse = box_loss(config.build(), coder, anchors, deltas + 0.5, boxes, 5.0)
    assert worse.value().item() > 0.05


def test_box_loss_gives_deltas_to_one_loss_and_decoded_boxes_to_another():
    seen: list[tuple[Tensor, Tensor]] = []

    class Spy(Loss):
        def elementwise(self, predicted: Tensor, target: Tensor) -> Tensor:
            seen.append((predicted, target))
            return predicted

    class BoxSpy(Spy):
        decoded = True

    coder = DeltaCoderConfig(stds=(0.1, 0.1, 0.2, 0.2)).build()
    anchors, boxes, deltas = random_boxes(3), random_boxes(3, seed=1), random(3, 4)
    for spy in (Spy(1.0), BoxSpy(1.0)):
        assert box_loss(spy, coder, anchors, deltas, boxes, 2.0).count == 2.0
    assert torch.equal(seen[0][0], deltas)
    assert torch.equal(seen[0][1], coder.encode(anchors, boxes))
    assert torch.equal(seen[1][0], coder.decode(anchors, deltas))
    assert torch.equal(seen[1][1], boxes)


@pytest.mark.parametrize("config", BOX_LOSSES, ids=lambda c: c.type)
def test_box_loss_of_half_precision_deltas_is_float32_and_of_none_is_zero(config):
    coder = DeltaCoderConfig().build()
    anchors, boxes = random_boxes(3), random_boxes(3, seed=1)
    deltas = random(3, 4).bfloat16()
    found = box_loss(config.build(), coder, anchors, deltas, boxes, 1.0).total
    assert found.dtype == torch.float32
    assert torch.equal(found, box_loss(config.build(), coder, anchors, deltas.float(), boxes, 1.0).total)
    none = torch.zeros(0, 4, requires_grad=True)
    term = box_loss(config.build(), coder, anchors[:0], none, boxes[:0], 0.0)
    term.value().backward()
    assert term.value().item() == 0.0
    assert none.grad is not None


def test_full_precision_raises_halves_alone():
    kept = {d: full_precision(torch.zeros(1, dtype=d)).dtype for d in (torch.float64, torch.float32, torch.int64)}
    assert all(before == after for before, after in kept.items())
    assert full_precision(torch.zeros(1, dtype=torch.float16)).dtype == torch.float32
    assert full_precision(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (L1Config, {"weight": -1.0}, r"weight\S*: found .+, expected .*at least 0"),
        (SmoothL1Config, {"beta": 0.0}, r"beta\S*: found .+, expected .*above 0"),
        (FocalConfig, {"gamma": -1.0}, r"gamma\S*: found .+, expected .*at least 0"),
        (FocalConfig, {"alpha": 1.5}, r"alpha\S*: found .+, expected .*at most 1"),
        (BoundedIoUConfig, {"beta": 0.0}, r"beta\S*: found .+, expected .*above 0"),
        (BoundedIoUConfig, {"eps": 0.0}, r"eps\S*: found .+, expected .*above 0"),
    ],
)
def test_settings_out_of_range_are_refused(config, settings, message):
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_class_weights_of_cross_entropy_are_factors_on_elements():
    logits, labels = random(6, 4), torch.tensor([0, 1, 2, 3, 3, 0])
    plain = CrossEntropyConfig(weight=2.0).build()(logits, labels, 6.0)
    each = CrossEntropyConfig().build().elementwise(logits, labels)
    weights = (0.5, 3.0, 0.0, 2.0)
    made = CrossEntropyConfig(weight=2.0, class_weights=weights).build()(logits, labels, 6.0)
    expected = 2.0 * sum(w * e for w, e in zip((0.5, 3.0, 0.0, 2.0, 2.0, 0.5), each.tolist(), strict=True))
    assert float(made.total) == pytest.approx(expected, rel=1e-5)
    assert made.count == plain.count
    ones = CrossEntropyConfig(weight=2.0, class_weights=(1, 1, 1, 1)).build()(logits, labels, 6.0)
    torch.testing.assert_close(ones.total, plain.total)


def test_class_weights_of_the_focal_loss_are_factors_on_columns():
    logits, labels = random(5, 3), torch.tensor([0, 2, 3, -1, 1])
    each = FocalConfig().build().elementwise(logits, labels)
    made = FocalConfig(weight=0.5, class_weights=(1.0, 0.0, 4.0)).build()(logits, labels, 1.0)
    torch.testing.assert_close(made.total, 0.5 * (each[:, 0].sum() + 4 * each[:, 2].sum()))
    ones = FocalConfig(class_weights=(1, 1, 1)).build()(logits, labels, 1.0)
    torch.testing.assert_close(ones.total, FocalConfig().build()(logits, labels, 1.0).total)


def test_class_weights_are_no_part_of_a_checkpoint_and_follow_the_dtype():
    loss = FocalConfig(class_weights=(1.0, 2.0)).build().double()
    assert not loss.state_dict()
    assert loss(random(2, 2).double(), torch.tensor([0, 1]), 1.0).total.dtype == torch.float64


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CrossEntropyConfig(class_weights=(1, 1, 1)), r"class_weights: found 3 factors, expected 4 \(K \+ 1, the back"),
        (FocalConfig(class_weights=(1, 1, 1)), r"class_weights: found 3 factors, expected 4 \(K\)"),
    ],
)
def test_class_weights_must_be_as_many_as_classes(config, message):
    with pytest.raises(ConfigError, match=message):
        config.build().elementwise(random(2, 4), torch.tensor([0, 1]))
