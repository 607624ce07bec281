"""torch's optimisers, built from their configurations."""

from __future__ import annotations

from typing import Any

from torch import optim

from det_core.optim.optimizer_config import AdamWConfig, SGDConfig


def sgd(config: SGDConfig, groups: list[dict[str, Any]]) -> optim.SGD:
    """SGD of these groups."""
    return optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=_fused(groups))


def adamw(config: AdamWConfig, groups: list[dict[str, Any]]) -> optim.AdamW:
    """AdamW of these groups."""
    return optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=_fused(groups))


def _fused(groups: list[dict[str, Any]]) -> bool | None:
    """True on CUDA. None leaves the choice to torch.

    On CPUs torch's fused steps are not faster with channels-last weights (they copy the gradients), and silently wrong
    if a gradient or momentum has another layout than its weights.
    """
    return True if all(p.is_cuda for group in groups for p in group["params"]) else None
