"""Configurations of losses. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from det_core.settings import configclass, setting
from det_core.slots import LossConfig

if TYPE_CHECKING:
    from det_core.model import losses


@configclass
class CrossEntropyConfig(LossConfig):
    """Softmax cross-entropy over K + 1 classes, background last."""

    type: ClassVar[str] = "cross_entropy"

    class_weights: tuple[float, ...] | None = setting(
        "factor on the loss of each class, in the order of the labels, the background last; null: 1",
        default=None,
        least=0,
    )

    def build(self) -> losses.CrossEntropy:
        from det_core.model.losses import CrossEntropy

        return CrossEntropy(self)


@configclass
class BinaryCrossEntropyConfig(LossConfig):
    """Sigmoid cross-entropy of each logit."""

    type: ClassVar[str] = "binary_cross_entropy"

    def build(self) -> losses.BinaryCrossEntropy:
        from det_core.model.losses import BinaryCrossEntropy

        return BinaryCrossEntropy(self.weight)


@configclass
class FocalConfig(LossConfig):
    """Sigmoid focal loss (Lin et al., 2017)."""

    type: ClassVar[str] = "focal"

    gamma: float = setting("focusing exponent; larger values down-weight easy examples", default=2.0, least=0)
    alpha: float = setting("weight of positives; negatives have 1 - alpha", default=0.25, least=0, most=1)
    class_weights: tuple[float, ...] | None = setting(
        "factor on the loss of each class, in the order of the labels; null: 1", default=None, least=0
    )

    def build(self) -> losses.Focal:
        from det_core.model.losses import Focal

        return Focal(self)


@configclass
class L1Config(LossConfig):
    """Absolute difference of deltas."""

    type: ClassVar[str] = "l1"

    def build(self) -> losses.L1:
        from det_core.model.losses import L1

        return L1(self.weight)


@configclass
class SmoothL1Config(LossConfig):
    """Absolute difference of deltas, quadratic below beta (Girshick, Fast R-CNN, 2015, section 2.3)."""

    type: ClassVar[str] = "smooth_l1"

    beta: float = setting("difference below which it is quadratic", default=1.0, above=0)

    def build(self) -> losses.SmoothL1:
        from det_core.model.losses import SmoothL1

        return SmoothL1(self)


@configclass
class BoundedIoUConfig(LossConfig):
    """Bounded IoU loss (Tychsen-Smith and Petersson, 2018); compares boxes."""

    type: ClassVar[str] = "bounded_iou"
    decoded: ClassVar[bool] = True

    beta: float = setting("difference below which it is quadratic", default=0.2, above=0)
    eps: float = setting("added to the denominators", default=1e-3, above=0)

    def build(self) -> losses.BoundedIoU:
        from det_core.model.losses import BoundedIoU

        return BoundedIoU(self)


@configclass
class GIoUConfig(LossConfig):
    """1 - generalised IoU (Rezatofighi et al., 2019); compares boxes."""

    type: ClassVar[str] = "giou"
    decoded: ClassVar[bool] = True

    def build(self) -> losses.GIoU:
        from det_core.model.losses import GIoU

        return GIoU(self.weight)
