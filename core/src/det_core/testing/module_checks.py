"""Contract checks of any module: gradients, finite values, autocast, and weights that can be saved and loaded."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from det_core.testing.config_checks import who


def built(build: Callable[[], Any], seed: int = 0) -> Any:
    """A module in training mode, with initial weights from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().train()


def check_module(
    config: object, build: Callable[[], nn.Module], run: Callable[[Any], object], may_be_empty: Tensor | None = None
) -> None:
    """Check gradients (also for an empty input, if given), autocast, save and load of a module without losses."""
    module = built(build)
    check_gradients(config, module, total_of(tensors(run(module))), "a sum of its outputs")
    if may_be_empty is not None:
        check_gradients(config, module, total_of(tensors(module(may_be_empty))), "an empty input")
    with torch.autocast("cpu", torch.bfloat16):
        outputs = tensors(run(module))
    check_finite(config, outputs, "outputs under autocast")
    check_gradients(config, module, total_of(outputs), "autocast")
    check_saving(config, build, run)


def check_gradients(config: object, module: nn.Module, total: Tensor, where: str) -> None:
    """Check that `total` () gives every trainable parameter a finite gradient. where: for the message."""
    parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
    if not parameters:
        return
    module.zero_grad(set_to_none=True)
    assert total.requires_grad, f"{who(config)}: {where} gives no gradient to any parameter"
    total.backward()
    without = [n for n, p in parameters.items() if p.grad is None]
    assert not without, f"{who(config)}: {where} gives no gradient to {', '.join(without)}; add 0 * x.sum()"
    wild = [n for n, p in parameters.items() if p.grad is not None and not bool(p.grad.isfinite().all())]
    assert not wild, f"{who(config)}: {where} gives a gradient that is not finite to {', '.join(wild)}"
    module.zero_grad(set_to_none=True)


def check_finite(config: object, values: Iterable[Tensor], what: str) -> None:
    """Check that all elements of tensors (...) are finite. what: for the message."""
    for tensor in values:
        assert bool(tensor.isfinite().all()), f"{who(config)}: {what}: not finite"


def check_saving(config: object, build: Callable[[], nn.Module], run: Callable[[Any], object]) -> None:
    """Check that saved weights, loaded into a module with other initial weights, give the same outputs."""
    first, second = built(build, seed=1).eval(), built(build, seed=2).eval()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        one, two = tensors(run(first)), tensors(run(second))
    same = len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert same, f"{who(config)}: the outputs differ after saving and loading its weights; some state is not saved"


def tensors(value: object) -> list[Tensor]:
    """All tensors (...) in a tensor, sequence, mapping or attrs object, at any depth."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in tensors(v)]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in tensors(v)]
    names = [f.name for f in getattr(type(value), "__attrs_attrs__", ())]
    return [t for name in names for t in tensors(getattr(value, name))]


def total_of(tensors: Iterable[Tensor]) -> Tensor:
    """() sum of squares and values of all floating-point tensors (...), whose gradient is not zero behind a norm."""
    return sum((t.float().square().sum() + t.float().sum() for t in tensors if t.is_floating_point()), torch.zeros(()))
