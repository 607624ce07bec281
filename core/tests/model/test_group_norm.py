"""Group norm in channels-last memory: as precise as in float64, gradients included, for any mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from det_core.model.group_norm import GroupNorm
from det_core.model.layer_config import GroupNormConfig

SHAPES = [(2, 8, 40, 56), (1, 8, 1, 9), (1, 8, 3, 17), (0, 8, 5, 5)]


def near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Within what float32 leaves of an input whose mean is 300 times its deviation."""
    return torch.allclose(found.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_float64(shape, groups, layout):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) * 0.01 + torch.arange(8.0)[:, None, None].div(groups).floor() - 3
    norm = GroupNorm(groups, 8)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    exact = nn.GroupNorm(groups, 8).double()
    exact.load_state_dict(norm.state_dict())
    theirs, ours = x.double().requires_grad_(), x.to(memory_format=layout).requires_grad_()
    weights = torch.randn(shape, generator=generator)
    found, expected = norm(ours), exact(theirs)
    assert near(found, expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for mine, right in ((ours, theirs), (norm.weight, exact.weight), (norm.bias, exact.bias)):
        scale = float(right.grad.abs().max()) if right.grad.numel() else 1.0
        assert near(mine.grad / max(scale, 1e-6), right.grad / max(scale, 1e-6))


def test_torch_loses_precision_there():
    """Once this fails, torch's own norm will do."""
    x = (torch.randn(1, 8, 40, 56) * 0.01 + 3.0).to(memory_format=torch.channels_last)
    expected = nn.GroupNorm(8, 8).double()(x.double())
    assert not near(nn.GroupNorm(8, 8)(x), expected)
    assert near(GroupNorm(8, 8)(x), expected)


def test_the_config_makes_it():
    norm = GroupNormConfig(groups=4).build(8)
    assert type(norm) is GroupNorm
    assert norm.state_dict().keys() == nn.GroupNorm(4, 8).state_dict().keys()
