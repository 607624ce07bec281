"""Configurations of losses. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen, validators

from det_core.config.base import LossConfig, doc

if TYPE_CHECKING:
    from det_core.model import losses

POSITIVE = validators.gt(0.0)


@frozen(kw_only=True)
class CrossEntropyConfig(LossConfig):
    """Softmax cross-entropy over K + 1 classes, background last."""

    type: ClassVar[str] = "cross_entropy"

    def build(self) -> losses.CrossEntropy:
        from det_core.model.losses import CrossEntropy

        return CrossEntropy(self)


@frozen(kw_only=True)
class BinaryCrossEntropyConfig(LossConfig):
    """Sigmoid cross-entropy of each logit on its own."""

    type: ClassVar[str] = "binary_cross_entropy"

    def build(self) -> losses.BinaryCrossEntropy:
        from det_core.model.losses import BinaryCrossEntropy

        return BinaryCrossEntropy(self)


@frozen(kw_only=True)
class FocalConfig(LossConfig):
    """Sigmoid focal loss (Lin et al., 2017)."""

    type: ClassVar[str] = "focal"

    gamma: float = field(default=2.0, validator=validators.ge(0.0), metadata=doc("how little easy examples count"))
    alpha: float = field(
        default=0.25, validator=[validators.ge(0.0), validators.le(1.0)], metadata=doc("share of the positives")
    )

    def build(self) -> losses.Focal:
        from det_core.model.losses import Focal

        return Focal(self)


@frozen(kw_only=True)
class L1Config(LossConfig):
    """Absolute difference of deltas."""

    type: ClassVar[str] = "l1"

    def build(self) -> losses.L1:
        from det_core.model.losses import L1

        return L1(self)


@frozen(kw_only=True)
class SmoothL1Config(LossConfig):
    """Absolute difference of deltas, quadratic below beta (Girshick, Fast R-CNN, 2015, section 2.3)."""

    type: ClassVar[str] = "smooth_l1"

    beta: float = field(default=1.0, validator=POSITIVE, metadata=doc("difference below which it is quadratic"))

    def build(self) -> losses.SmoothL1:
        from det_core.model.losses import SmoothL1

        return SmoothL1(self)


@frozen(kw_only=True)
class BoundedIoUConfig(LossConfig):
    """Bounded IoU loss (Tychsen-Smith and Petersson, 2018); compares boxes."""

    type: ClassVar[str] = "bounded_iou"
    decoded: ClassVar[bool] = True

    beta: float = field(default=0.2, validator=POSITIVE, metadata=doc("difference below which it is quadratic"))
    eps: float = field(default=1e-3, validator=POSITIVE, metadata=doc("floor of the denominators"))

    def build(self) -> losses.BoundedIoU:
        from det_core.model.losses import BoundedIoU

        return BoundedIoU(self)


@frozen(kw_only=True)
class GIoUConfig(LossConfig):
    """1 - generalised IoU (Rezatofighi et al., 2019); compares boxes."""

    type: ClassVar[str] = "giou"
    decoded: ClassVar[bool] = True

    def build(self) -> losses.GIoU:
        from det_core.model.losses import GIoU

        return GIoU(self)
