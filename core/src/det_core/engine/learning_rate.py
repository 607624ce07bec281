"""The learning rate as a function of the step."""

from __future__ import annotations

from attrs import frozen

from det_core.recipe import ScheduleConfig
from det_core.slots import OptimizerConfig
from det_core.specs import TrainingLength


@frozen
class LearningRate:
    """Linear warm-up times the schedule of the recipe. A pure function, so resuming needs no state.

    base: the configured rate. scale: the total batch divided by the batch that the rate is for.
    """

    base: float
    scale: float
    schedule: ScheduleConfig
    length: TrainingLength

    @property
    def steps_per_epoch(self) -> int:
        return self.length.steps_per_epoch

    @property
    def effective(self) -> float:
        """The rate that the factors of warm-up and schedule multiply."""
        return self.base * self.scale

    def at(self, step: int) -> float:
        """The rate of 0-based step `step`."""
        rate = self.effective * self.schedule.learning_rate.factor(step, self.length)
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
    length = TrainingLength(epochs=schedule.epochs, steps_per_epoch=steps_per_epoch)
    return LearningRate(optimizer.lr, scale, schedule, length)
