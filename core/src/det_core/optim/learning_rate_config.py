"""Learning-rate schedules: factors on the learning rate as functions of the step. Imports no torch.

They equal torch's schedulers, named in each class, in closed form.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from det_core.settings import configclass, setting
from det_core.slots import LearningRateConfig
from det_core.specs import TrainingLength

By = Literal["epoch", "step"]
BY = "change the rate after each epoch, or after each step"
FLOOR = "factor that the schedule falls to"


def _progress(by: By, step: int, length: TrainingLength) -> tuple[int, int]:
    """The epoch and the number of epochs, or the step and the number of steps."""
    return (step, length.steps) if by == "step" else (step // length.steps_per_epoch, length.epochs)


@configclass
class StepRateConfig(LearningRateConfig):
    """Drops by a factor at milestones (torch's MultiStepLR)."""

    type: ClassVar[str] = "step"

    milestones: tuple[int, ...] = setting("epochs (or steps) after which the learning rate drops", default=(8, 11))
    gamma: float = setting("factor on the learning rate at each milestone", default=0.1, above=0)
    by: By = setting("unit of the milestones", default="epoch")

    def factor(self, step: int, length: TrainingLength) -> float:
        done, _ = _progress(self.by, step, length)
        return self.gamma ** sum(done >= milestone for milestone in self.milestones)


@configclass
class ConstantRateConfig(LearningRateConfig):
    """The same rate throughout."""

    type: ClassVar[str] = "constant"

    def factor(self, step: int, length: TrainingLength) -> float:
        return 1.0


@configclass
class CosineRateConfig(LearningRateConfig):
    """Half a cosine (Loshchilov and Hutter, 2017, without restarts; torch's CosineAnnealingLR)."""

    type: ClassVar[str] = "cosine"

    floor: float = setting(FLOOR, default=0.0, least=0, most=1)
    by: Literal["epoch", "step"] = setting(BY, default="step")

    def factor(self, step: int, length: TrainingLength) -> float:
        done, of = _progress(self.by, step, length)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * min(done / of, 1))) / 2


@configclass
class PolynomialRateConfig(LearningRateConfig):
    """A power of what is left of the run (torch's PolynomialLR)."""

    type: ClassVar[str] = "polynomial"

    power: float = setting("power; 1: linear", default=0.9, above=0)
    floor: float = setting(FLOOR, default=0.0, least=0, most=1)
    by: Literal["epoch", "step"] = setting(BY, default="step")

    def factor(self, step: int, length: TrainingLength) -> float:
        done, of = _progress(self.by, step, length)
        return self.floor + (1 - self.floor) * (1 - min(done / of, 1)) ** self.power


@configclass
class OneCycleRateConfig(LearningRateConfig):
    """Rises from a low rate to the optimiser's, and falls to a very low one (Smith and Topin, 2018).

    torch's OneCycleLR of the learning rate; the momentum is not changed.
    """

    type: ClassVar[str] = "one_cycle"
    warms_up: ClassVar[bool] = True

    rising: float = setting("share of the steps in which the rate rises", default=0.3, above=0, below=1)
    start: float = setting("factor at the first step", default=0.04, above=0, most=1)
    floor: float = setting("factor at the last step", default=4e-6, least=0, most=1)
    curve: Literal["cosine", "linear"] = setting("shape of both parts", default="cosine")

    def factor(self, step: int, length: TrainingLength) -> float:
        top, last = self.rising * length.steps - 1, length.steps - 1
        if top > 0 and step <= top:
            return self._between(self.start, 1.0, step / top)
        return self._between(1.0, self.floor, min((step - top) / max(last - top, 1), 1.0))

    def _between(self, begin: float, end: float, part: float) -> float:
        if self.curve == "linear":
            return begin + (end - begin) * part
        return end + (begin - end) / 2 * (1 + math.cos(math.pi * part))
