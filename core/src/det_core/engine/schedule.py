"""The optimiser, and its learning rate as a function of the step."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from torch import nn, optim

from det_core.recipe import OptimizerConfig, ScheduleConfig


@frozen
class LearningRate:
    """Linear warm-up, then steps down after the milestone epochs. A pure function, so resuming needs no state.

    base: the configured rate. scale: the total batch divided by the batch that the rate is for.
    """

    base: float
    scale: float
    schedule: ScheduleConfig
    steps_per_epoch: int

    @property
    def effective(self) -> float:
        """The rate between warm-up and the first milestone."""
        return self.base * self.scale

    def at(self, step: int) -> float:
        """The rate of 0-based step `step`."""
        epoch = step // self.steps_per_epoch
        rate = self.effective * self.schedule.gamma ** sum(epoch >= m for m in self.schedule.milestones)
        last = self.schedule.warmup_steps - 1  # the first step with the full rate
        if step < last:
            factor = self.schedule.warmup_factor
            rate *= factor + (1 - factor) * step / last
        return rate


def learning_rate(
    optimizer: OptimizerConfig, schedule: ScheduleConfig, total_batch: int, steps_per_epoch: int
) -> LearningRate:
    """The rate for a total batch (linear scaling rule, Goyal et al., 2017)."""
    scale = total_batch / optimizer.lr_batch if optimizer.lr_batch else 1.0
    return LearningRate(optimizer.lr, scale, schedule, steps_per_epoch)


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> optim.Optimizer:
    """torch's optimiser for all trainable parameters, which must be on their device. The rate is set at every step."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = _groups(config, model)
    # On CPUs torch's fused steps are not faster with channels-last weights (they copy the gradients), and silently
    # wrong if a gradient or momentum has another layout than its weights.
    fused = True if all(p.is_cuda for p in parameters) else None
    if config.kind == "adamw":
        return optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
    return optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused)


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def _groups(config: OptimizerConfig, model: nn.Module) -> list[dict[str, Any]]:
    """The trainable parameters in groups of one weight decay: those of norms in a second one, if it is their own."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.norm_weight_decay is None:
        return [{"params": parameters}]
    norms = {p for module in model.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)}
    return [
        {"params": [p for p in parameters if p not in norms]},
        {"params": [p for p in parameters if p in norms], "weight_decay": config.norm_weight_decay},
    ]
