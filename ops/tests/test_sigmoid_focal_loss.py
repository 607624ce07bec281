"""The focal loss against the formula in double precision, torchvision and the reference, and extreme logits."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from op_samples import CLOSE, assert_close, generator, maps, native, reference, scattered, serve

import det_ops

WIDE = torch.float64
INF, NAN = math.inf, math.nan


def formula(logits, target, weight=None, gamma=2.0, alpha=0.25):
    """Plain Python floats: -alpha_t (1 - p_t)^gamma log p_t, with log p_t written so that it does not saturate."""
    out = torch.zeros(logits.shape, dtype=WIDE)
    for row, t in enumerate(target.tolist()):
        for c in range(logits.shape[1]):
            x = float(logits[row, c])
            signed = x if t == c else -x  # p_t = sigmoid(signed)
            softplus = max(-signed, 0.0) + math.log1p(math.exp(-abs(signed)))  # -log p_t
            miss = 1 / (1 + math.exp(signed)) if signed < 0 else math.exp(-signed) / (1 + math.exp(-signed))
            share = alpha if t == c else 1 - alpha
            factor = 0.0 if t < 0 else float(weight[t]) if weight is not None and t < len(weight) else 1.0
            out[row, c] = factor * share * miss**gamma * softplus
    return out


def slope(logits, target, gamma=2.0, alpha=0.25):
    """The derivative of the formula: of the negatives p^g (p + g (1 - p) softplus(x)), of the positives mirrored."""
    sign = torch.where(target[:, None] == torch.arange(logits.shape[1]), -1.0, 1.0).double()
    x = logits.double() * sign
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    softplus = x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))
    share = torch.where(sign < 0, alpha, 1 - alpha)
    return sign * share * p**gamma * (p + gamma * q * softplus)


def gradient(loss, logits):
    return torch.autograd.grad(loss.sum(), logits)[0]


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, WIDE])
def test_it_is_the_formula(server, gamma, weighted, dtype):
    logits, target = maps(40, 7, dtype=dtype) * 4, torch.arange(40) % 9 - 1
    weight = torch.rand(7, generator=generator()) * 3 if weighted else None
    expected = formula(logits, target, weight, gamma)
    found = serve(server, "sigmoid_focal_loss", logits, target, weight, gamma, 0.25, False)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-12)
    total = serve(server, "sigmoid_focal_loss", logits, target, weight, gamma, 0.25, True)
    torch.testing.assert_close(total.double(), expected.sum(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, WIDE])
def test_moderate_logits_equal_torchvision_with_gradient(dtype):
    torchvision = pytest.importorskip("torchvision", reason="the results of torchvision are compared with ours")
    logits = (maps(30, 5, dtype=dtype) * 2).requires_grad_()
    target = torch.arange(30) % 6
    ours = det_ops.sigmoid_focal_loss(logits, target)
    one_hot = torch.nn.functional.one_hot(target, 6)[:, :5].to(dtype)
    peer = torchvision.ops.sigmoid_focal_loss(logits, one_hot)
    torch.testing.assert_close(ours, peer)
    torch.testing.assert_close(gradient(ours, logits), gradient(peer, logits), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, WIDE])
@pytest.mark.parametrize("x", [-1e4, -88.0, -50.0, 50.0, 88.0, 1e4])
def test_large_logits_do_not_saturate(server, dtype, x):
    logits, target = torch.full((2, 20), x, dtype=dtype), torch.tensor([3, 20])
    found = serve(server, "sigmoid_focal_loss", logits, target, None, 2.0, 0.25, False)
    positive = target[:, None] == torch.arange(20)
    signed, share = torch.where(positive, x, -x).double(), torch.where(positive, 0.25, 0.75)
    expected = share * torch.sigmoid(-signed) ** 2 * (torch.log1p(torch.exp(-signed.abs())) + (-signed).clamp(min=0))
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-37)
    grad = torch.ones(2, 20, dtype=dtype)
    slopes = serve(server, "sigmoid_focal_loss_backward", grad, logits, target, None, 2.0, 0.25)
    torch.testing.assert_close(slopes.double(), slope(logits, target), rtol=1e-6, atol=1e-36)


@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, WIDE])
@pytest.mark.parametrize("gamma", [1.5, 2.0])
@pytest.mark.parametrize("columns", [1, 40])
def test_infinite_logits_and_those_that_are_no_number(server, dtype, gamma, columns):
    logits = torch.tensor([INF, -INF, NAN], dtype=dtype)[:, None].repeat(1, columns)
    background = torch.full((3,), columns)
    found = serve(server, "sigmoid_focal_loss", logits, background, None, gamma, 0.25, False)
    assert (found[0] == INF).all()
    assert (found[1] == 0).all()
    assert found[2].isnan().all()
    grad = serve(server, "sigmoid_focal_loss_backward", torch.ones_like(found), logits, background, None, gamma, 0.25)
    assert not grad[1].any()
    assert grad[2].isnan().all()
    positive = serve(server, "sigmoid_focal_loss", logits, background * 0, None, gamma, 0.25, False)[:, 0]
    assert positive[:2].tolist() == [0, INF]
    assert positive[2].isnan()


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_the_vectorised_exponential_and_logarithm_are_accurate(native_library, gamma):
    x = torch.linspace(-90, 90, 200_001)[:, None]
    background = torch.ones(len(x), dtype=torch.int64)
    found = native("sigmoid_focal_loss", x, background, None, gamma, 0.0, False)[:, 0].double()
    wide = x[:, 0].double()
    softplus = wide.clamp(min=0) + torch.log1p(torch.exp(-wide.abs()))
    expected = torch.sigmoid(wide) ** gamma * softplus
    normal = expected > 1e-36  # below there are few digits left in a float
    assert int(normal.sum()) > 100_000
    assert float(((found - expected).abs() / expected)[normal].max()) < 1e-6
    assert float(found[~normal].max() if (~normal).any() else 0) < 1e-35
    grad = native("sigmoid_focal_loss_backward", torch.ones_like(x), x, background, None, gamma, 0.0)[:, 0].double()
    exact = slope(x, background, gamma, 0.0)[:, 0]
    normal = exact > 1e-36
    assert float(((grad - exact).abs() / exact)[normal].max()) < 1e-6


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("classes", [0, 1, 3, 17, 80])
@pytest.mark.parametrize("rows", [0, 1, 63, 65, 1000])
def test_native_equals_the_reference_with_gradients(native_library, dtype, classes, rows):
    logits, target = maps(rows, classes, dtype=dtype) * 5, torch.arange(rows) % (classes + 2) - 1
    for gamma, weight in ((2.0, None), (1.5, torch.rand(classes, generator=generator()) + 0.5)):
        for summed, grad in ((True, torch.tensor(0.7)), (False, maps(rows, classes, seed=9))):
            arguments = (logits, target, weight, gamma, 0.25)
            found, expected = (call("sigmoid_focal_loss", *arguments, summed) for call in (native, reference))
            assert_close(found, expected, min(CLOSE[dtype], 1e-5))
            grad = grad.to(found.dtype)
            ours, theirs = (call("sigmoid_focal_loss_backward", grad, *arguments) for call in (native, reference))
            assert_close(ours, theirs, CLOSE[dtype])


@settings(max_examples=60, deadline=None)
@given(
    drawn=st.lists(st.tuples(st.integers(-2, 5), *[st.floats(-120, 120, width=32)] * 5), max_size=20),
    gamma=st.sampled_from([0.0, 1.0, 2.0]),
)
def test_native_equals_the_formula_for_any_target(native_library, drawn, gamma):
    logits = torch.tensor([row[1:] for row in drawn]).reshape(-1, 5)
    target = torch.tensor([row[0] for row in drawn], dtype=torch.int64)
    found = native("sigmoid_focal_loss", logits, target, None, gamma, 0.25, False)
    torch.testing.assert_close(found.double(), formula(logits, target, None, gamma), rtol=2e-6, atol=1e-36)


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_the_gradient_is_right(gamma, reduction):
    logits, target = (maps(7, 3, dtype=WIDE) * 3).requires_grad_(), torch.tensor([0, 1, 2, 3, -1, 3, 0])
    weight = torch.tensor([0.5, 1.0, 2.0])

    def call(logits):
        return det_ops.sigmoid_focal_loss(logits, target, gamma, 0.3, weight, reduction)

    assert torch.autograd.gradcheck(call, (logits,))


def test_reductions_and_ignored_rows():
    logits, target = maps(6, 4), torch.tensor([0, -1, 4, -7, 2, 4])
    each = det_ops.sigmoid_focal_loss(logits, target)
    assert not each[[1, 3]].any()
    assert each[[0, 2, 4, 5]].all()
    torch.testing.assert_close(det_ops.sigmoid_focal_loss(logits, target, reduction="sum"), each.sum())
    torch.testing.assert_close(det_ops.sigmoid_focal_loss(logits, target, reduction="mean"), each.mean())
    assert float(det_ops.sigmoid_focal_loss(logits[:0], target[:0], reduction="mean")) == 0


def test_background_has_weight_one_and_strides_do_not_matter():
    logits, target, weight = maps(6, 4), torch.tensor([0, 4, 4, 3, 2, 4]), torch.tensor([2.0, 3, 4, 5])
    ratio = det_ops.sigmoid_focal_loss(logits, target, weight=weight) / det_ops.sigmoid_focal_loss(logits, target)
    torch.testing.assert_close(ratio, torch.tensor([2.0, 1, 1, 5, 4, 1])[:, None].expand(6, 4))
    spread = det_ops.sigmoid_focal_loss(scattered(logits), scattered(target), weight=scattered(weight))
    torch.testing.assert_close(spread, det_ops.sigmoid_focal_loss(logits, target, weight=weight))
