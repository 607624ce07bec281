"""The moving average: torch's values bit for bit, whole numbers in a handful of calls."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

from det_core import torch_internals
from det_core.engine.moving_average import averaging


class Count(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += not func.is_view
        return func(*args, **(kwargs or {}))


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.BatchNorm1d(3) for _ in range(20)), nn.Linear(3, 2).double())


@pytest.fixture(params=["together", "one by one"])
def copies(request, monkeypatch):
    """Whether this torch can copy several tensors in one call."""
    if request.param == "one by one":
        monkeypatch.setattr(torch_internals, "COPY_ALL", "gone")


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_averages_are_torchs(copies, decay):
    trained = model()
    pair = [
        AveragedModel(trained, multi_avg_fn=function(decay), use_buffers=True)
        for function in (get_ema_multi_avg_fn, averaging)
    ]
    for step in range(4):
        for part in trained[:-1]:
            part(torch.randn(5, 3) * step)
        with torch.no_grad():
            trained[-1].weight.add_(step)
        calls = []
        for average in pair:
            with Count() as count:
                average.update_parameters(trained)
            calls.append(count.calls)
        theirs, own = (average.state_dict() for average in pair)
        assert theirs.keys() == own.keys()
        assert all(torch.equal(own[name], theirs[name]) for name in theirs)
    assert calls[1] < calls[0] - 50
