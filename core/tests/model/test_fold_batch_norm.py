"""A convolution and a fixed norm as one convolution: the same values and gradients, and only where it is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from det_core.model import fold_batch_norm
from det_core.model.fold_batch_norm import BatchNorm, NormAffines, conv_norm, one_call
from det_core.model.layer_config import BatchNormConfig, FrozenBatchNormConfig, GroupNormConfig


def pair(*, frozen_statistics: bool = True, **conv: object) -> tuple[nn.Conv2d, BatchNorm]:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, padding=1, bias=False, **conv).double()  # type: ignore[arg-type]
    norm = BatchNorm(6, frozen_statistics=frozen_statistics).double()
    for values in (norm.weight, norm.running_var):
        nn.init.uniform_(values, 0.5, 2.0)  # type: ignore[arg-type]
    for values in (norm.bias, norm.running_mean):
        nn.init.normal_(values)  # type: ignore[arg-type]
    return layer, norm


def plain(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    result: Tensor = norm(conv(x))
    return result


@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"groups": 2}, {"dilation": 2}])
@pytest.mark.parametrize("mode", [True, False])
def test_values_and_gradients_are_those_of_the_two_layers(settings: dict[str, int], mode: bool) -> None:
    conv, norm = pair(**settings)
    conv.train(mode)
    norm.train(mode)
    grads = []
    for function in (plain, conv_norm):
        x = torch.randn(2, 4, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = function(conv, norm, x)
        parameters = [x, conv.weight, norm.weight, norm.bias]
        grads.append([out, *torch.autograd.grad(out.square().sum(), parameters)])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(other, one)


def test_it_is_one_convolution() -> None:
    conv, norm = pair()
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        conv_norm(conv, norm, x)
    names = {event.name for event in profile.events() or []}
    assert "aten::conv2d" in names
    assert "aten::batch_norm" not in names


def test_a_norm_that_follows_the_batch_is_asked_itself() -> None:
    conv, norm = pair(frozen_statistics=False)
    norm.train()
    before = norm.running_mean.clone()  # type: ignore[union-attr]
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    out = conv_norm(conv, norm, x)
    assert torch.allclose(out.mean((0, 2, 3)), norm.bias, atol=1e-6)
    assert not torch.equal(norm.running_mean, before)  # type: ignore[arg-type]


@pytest.mark.parametrize("watched", ["conv", "norm"])
def test_hooks_are_called(watched: str) -> None:
    conv, norm = pair()
    seen: list[Tensor] = []
    module = conv if watched == "conv" else norm
    module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    out = conv_norm(conv, norm, x)
    assert len(seen) == 1
    torch.testing.assert_close(out, norm(conv(x)))


class Doubled(nn.Conv2d):
    """A convolution of somebody's own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "conv",
    [Doubled(4, 8, 3, bias=False), nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect")],
    ids=["another kind", "bias", "reflecting"],
)
def test_other_convolutions_are_asked_themselves(conv: nn.Module) -> None:
    norm = FrozenBatchNormConfig().build(8)
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(conv_norm(conv, norm, x), norm(conv(x)))


def test_other_norms_are_asked_themselves() -> None:
    conv, norm = nn.Conv2d(4, 8, 3, bias=False), GroupNormConfig(groups=2).build(8)
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(conv_norm(conv, norm, x), norm(conv(x)))


def test_half_precision_statistics_are_left_to_torch() -> None:
    norm = BatchNormConfig(frozen_statistics=True).build(8).bfloat16()
    assert isinstance(norm, BatchNorm)
    assert norm.fixed_affine() is None


def test_autocast() -> None:
    conv, norm = pair()
    conv.float(), norm.float()
    x = torch.randn(1, 4, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv_norm(conv, norm, x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), norm(conv(x)), atol=0.1, rtol=0.05)


def many_norms() -> nn.ModuleList:
    """Three that train, two that do not, one that follows the batch, of different sizes."""
    torch.manual_seed(0)
    norms = nn.ModuleList(BatchNorm(c, eps=e, frozen_statistics=True) for c, e in ((3, 1e-5), (5, 1e-3), (4, 1e-5)))
    norms.extend(FrozenBatchNormConfig().build(c) for c in (2, 3))
    norms.append(BatchNorm(3))
    for norm in norms:
        for values in (norm.weight, norm.running_var):
            nn.init.uniform_(values, 0.5, 2.0)  # type: ignore[arg-type]
        for values in (norm.bias, norm.running_mean):
            nn.init.normal_(values)  # type: ignore[arg-type]
    return norms


def affines(norms: nn.ModuleList) -> list[Tensor]:
    """All scales and shifts, then the gradients that their squares leave at the parameters."""
    found = [x for norm in norms for x in norm.fixed_affine() or ()]  # type: ignore[operator]
    trained = [p for norm in norms[:3] for p in norm.parameters()]
    return [*found, *torch.autograd.grad(sum(x.square().sum() for x in found), trained)]


def test_computed_together_scales_shifts_and_gradients_are_the_same_bits() -> None:
    norms, together = many_norms(), NormAffines()
    for _ in range(2):  # the second time, statistics are kept
        expected = affines(norms)
        with together.computed(norms):
            found = affines(norms)
        assert len(found) == 2 * 5 + 2 * 3
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        with torch.no_grad():
            norms[0].weight.mul_(2)
    assert all(norm.computed is None for norm in norms)


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
@pytest.mark.parametrize("row", [0, 3])
def test_what_is_kept_follows_a_change_of_the_tensors(name: str, row: int) -> None:
    norms, together = many_norms(), NormAffines()
    for _ in range(2):
        with together.computed(norms):
            found = affines(norms)
        assert all(torch.equal(one, other) for one, other in zip(found, affines(norms), strict=True))
        with torch.no_grad():
            getattr(norms[row], name).mul_(1.5)


def test_computed_together_no_norm_keeps_them_after_an_error() -> None:
    norms = many_norms()

    def fail() -> None:
        with NormAffines().computed(norms):
            assert norms[0].computed is not None
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert norms[0].computed is None


def test_a_compiled_part_computes_them_itself() -> None:
    norms = many_norms()
    norms[0].compile()
    with NormAffines().computed(norms):
        assert norms[0].computed is None


# on devices where launches cost most


class Calls(TorchDispatchMode):
    """The operators that are called, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def step_of(dtype: torch.dtype, trains: bool) -> tuple[list[Tensor], list[str]]:
    """The output, and the gradients of input and weights, of a convolution with a norm; and the operators' names."""
    conv, norm = (module.to(dtype) for module in pair())
    norm.requires_grad_(trains)
    x = torch.randn(2, 4, 7, 9, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    parameters = [p for p in (x, conv.weight, norm.weight, norm.bias) if p.requires_grad]
    with NormAffines().computed(nn.ModuleList([conv, norm])), Calls() as calls:
        out = conv_norm(conv, norm, x)
        gradients = torch.autograd.grad(out.square().sum(), parameters)
    return [out.detach(), *gradients], calls.names


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_norm_that_trains_is_one_call_where_launches_cost_most(dtype, monkeypatch) -> None:
    folded, names = step_of(dtype, trains=True)
    assert not any("batch_norm" in name for name in names)
    monkeypatch.setattr(fold_batch_norm, "ONE_CALL", ("cpu",))
    alone, own = step_of(dtype, trains=True)
    assert sum("native_batch_norm" in name for name in own) == 2  # forward and backward
    assert len(own) < len(names)
    tolerance = {} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    for one, other in zip(alone, folded, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def test_the_device_decides_how_a_norm_that_trains_is_computed() -> None:
    norm = BatchNorm(2, frozen_statistics=True)
    assert not one_call(norm)
    on_gpu = SimpleNamespace(weight=SimpleNamespace(device=torch.device("cuda"), requires_grad=True))
    assert one_call(on_gpu)
    with torch.no_grad():
        assert not one_call(on_gpu)


def test_a_norm_that_does_not_train_is_folded_everywhere(monkeypatch) -> None:
    _, names = step_of(torch.float32, trains=False)
    monkeypatch.setattr(fold_batch_norm, "ONE_CALL", ("cpu",))
    assert step_of(torch.float32, trains=False)[1] == names
    assert not any("batch_norm" in name for name in names)
