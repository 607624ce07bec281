"""Configurations of torch's optimisers. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from det_core.settings import configclass, setting
from det_core.slots import OptimizerConfig

if TYPE_CHECKING:
    from torch.optim import Optimizer


@configclass
class SGDConfig(OptimizerConfig):
    """torch's SGD."""

    type: ClassVar[str] = "sgd"

    momentum: float = setting("momentum", default=0.9, least=0)
    nesterov: bool = setting("Nesterov momentum", default=False)

    def __attrs_post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: true requires a momentum above 0")

    def build(self, groups: list[dict[str, Any]]) -> Optimizer:
        from det_core.optim.optimizers import sgd

        return sgd(self, groups)


def _check_betas(betas: tuple[float, float]) -> str:
    return "" if all(beta < 1 for beta in betas) else "both must be below 1"


@configclass
class AdamWConfig(OptimizerConfig):
    """torch's AdamW (Loshchilov and Hutter, 2019)."""

    type: ClassVar[str] = "adamw"

    lr: float = setting("learning rate for a total batch of `lr_batch` images", default=1e-4, above=0)
    weight_decay: float = setting("weight decay of all parameters", default=0.05, least=0)
    betas: tuple[float, float] = setting(
        "decay of the running means of gradients and of their squares",
        default=(0.9, 0.999),
        least=0,
        check=_check_betas,
    )
    eps: float = setting("added to the denominator", default=1e-8, above=0)

    def build(self, groups: list[dict[str, Any]]) -> Optimizer:
        from det_core.optim.optimizers import adamw

        return adamw(self, groups)
